// Convolutions as products without a copy of every window, by the tiles of gemm.cuh. In a row of pixels the taps of one
// kernel row and their channels are neighbours in memory, and so are the weights that meet them: a stretch. Masked taps are in
// no stretch, and are neither read nor multiplied.
#pragma once

#include "gemm.cuh"
#include "gencore/conv.h"

namespace gencore::cuda {

struct Range {
  int begin, end;
};

// A convolution's shape as its three ops see it.
struct Taps {
  int kh, kw, c_in, c_out, groups;
  conv::Mask mask;

  Taps(const conv::Geometry& op, const std::int64_t (&kernel)[4])
      : kh(static_cast<int>(kernel[0])),
        kw(static_cast<int>(kernel[1])),
        c_in(static_cast<int>(kernel[2])),
        c_out(static_cast<int>(kernel[3])),
        groups(static_cast<int>(op.channel_groups)),
        mask(op.mask) {}

  GENCORE_INLINE bool causal() const { return mask == conv::Mask::before || mask == conv::Mask::to_here; }
  // Columns of a kernel row: whole taps, and whether the last of them is the centre of a mask with colours.
  GENCORE_INLINE int columns(int ky) const {
    const int row = kh / 2;
    if (mask == conv::Mask::none || ky < row) return kw;
    if (ky > row || mask == conv::Mask::above) return 0;
    if (mask == conv::Mask::to_this_row) return kw;
    return kw / 2 + (mask == conv::Mask::to_here || groups > 1 ? 1 : 0);
  }
  GENCORE_INLINE bool is_centre(int ky, int kx) const { return causal() && ky == kh / 2 && kx == kw / 2; }
  // How many input channels an output of colour g sees, and which output channels see an input of colour g.
  GENCORE_INLINE int inputs(int ky, int kx, int g) const {
    if (groups == 1 || !is_centre(ky, kx)) return c_in;
    return (mask == conv::Mask::before ? g : g + 1) * (c_in / groups);
  }
  GENCORE_INLINE Range outputs(int ky, int kx, int g) const {
    if (groups == 1 || !is_centre(ky, kx)) return {0, c_out};
    return {(mask == conv::Mask::before ? g + 1 : g) * (c_out / groups), c_out};
  }
  // The stretch of a kernel row that outputs of colour g see.
  GENCORE_INLINE int stretch(int ky, int g) const {
    const int whole = columns(ky);
    return whole == 0 ? 0 : (whole - 1) * c_in + inputs(ky, whole - 1, g);
  }
};

// Channels [begin, end) of one colour, cut into tiles of `width`: tile t of groups * tiles_of(channels).
struct ChannelTiles {
  int colour, width, of_colour;
  ChannelTiles(int channels, int groups, int width)
      : colour(channels / groups), width(width), of_colour((channels / groups + width - 1) / width) {}
  GENCORE_INLINE int group(int tile) const { return tile / of_colour; }
  GENCORE_INLINE int begin(int tile) const { return group(tile) * colour + tile % of_colour * width; }
  GENCORE_INLINE int end(int tile) const { return (group(tile) + 1) * colour; }  // of the colour
};

// A tile of 16 `rows` x 16 `units` sums, whose factors are fetched by functions of their place. Both factors' elements that
// do not exist are 0, so that they leave the sums alone.
template <int rows, int units>
struct ConvTile {
  static constexpr int height = tile_side * rows, width = tile_side * units;
  using Places = Tile<8>;

  struct Memory {
    alignas(16) float a[tile_depth][height];
    alignas(16) float b[tile_depth][width];
  };

  // A thread's share of the way to shared memory: element s has this line and this place in the step. Neighbours are
  // threads along the depth of a step, or along the lines, whichever are neighbours in memory.
  template <int count, bool along_depth>
  struct Share {
    static constexpr int lines = tile_side * count, elements = lines * tile_depth / block_threads;
    static_assert(elements > 0);
    float held[elements];

    __device__ static int line(int s) {
      const int i = static_cast<int>(threadIdx.x);
      return along_depth ? i / tile_depth + s * (block_threads / tile_depth) : i % lines;
    }
    __device__ static int depth(int s) {
      const int i = static_cast<int>(threadIdx.x);
      return along_depth ? i % tile_depth : i / lines + s * (block_threads / lines);
    }
    // from(element, line, place in the step) for each of the thread's elements.
    template <class From>
    __device__ void fetch(const From& from) {
#pragma unroll
      for (int s = 0; s < elements; ++s) held[s] = from(s, line(s), depth(s));
    }
    __device__ void put(float* to) const {
#pragma unroll
      for (int s = 0; s < elements; ++s) to[depth(s) * lines + Places::place<count>(line(s))] = held[s];
    }
  };

  // Adds the products of one step.
  __device__ static void add(const Memory& memory, float (&sum)[rows][units]) {
    const int x = static_cast<int>(threadIdx.x) % tile_side, y = static_cast<int>(threadIdx.x) / tile_side;
#pragma unroll
    for (int t = 0; t < tile_depth; ++t) {
      float a[rows], b[units];
      Places::read<rows>(memory.a[t], y, a);
      Places::read<units>(memory.b[t], x, b);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
#pragma unroll
        for (int c = 0; c < units; ++c) sum[r][c] = fmaf(a[r], b[c], sum[r][c]);
      }
    }
  }

  // The sums over all steps. `steps` is where they are: valid(), next(), and fetch(a, b) into the shares, of types
  // Steps::A and Steps::B.
  template <class Steps>
  __device__ static void sum_up(Memory& memory, Steps& steps, float (&sum)[rows][units]) {
    typename Steps::A a;
    typename Steps::B b;
    bool more = steps.valid();
    if (more) steps.fetch(a, b);
    while (more) {
      a.put(&memory.a[0][0]);
      b.put(&memory.b[0][0]);
      __syncthreads();
      steps.next();
      more = steps.valid();
      if (more) steps.fetch(a, b);
      add(memory, sum);
      __syncthreads();
    }
  }

  // body(line, unit, sum) for each of the thread's sums. Not unrolled along the lines, so that the body is compiled for one
  // of them: the sums move up instead.
  template <class Body>
  __device__ static void each(float (&sum)[rows][units], const Body& body) {
    const int x = static_cast<int>(threadIdx.x) % tile_side, y = static_cast<int>(threadIdx.x) / tile_side;
#pragma unroll 1
    for (int r = 0; r < rows; ++r) {
#pragma unroll
      for (int c = 0; c < units; ++c) body(y + tile_side * r, x + tile_side * c, sum[0][c]);
#pragma unroll
      for (int other = 1; other < rows; ++other) {
#pragma unroll
        for (int c = 0; c < units; ++c) sum[other - 1][c] = sum[other][c];
      }
    }
  }
};

template <int n>
using Number = std::integral_constant<int, n>;

// run(rows, units of a thread) for so many lines and channels of a colour.
template <class Op, class Run>
void with_conv_tile(const Op& op, std::int64_t lines, std::int64_t tiles_beside, std::int64_t channels,
                    const Run& run) {
  const auto with_units = [&](auto units) {
    const std::int64_t tiles = ceil_div(lines, tile_side * 8) * tiles_beside * ceil_div(channels, tile_side * units);
    if (lines > tile_side * 2 && tiles >= limits_of(Op::name, op.device).multiprocessors)
      return run(Number<8>{}, units);
    run(Number<2>{}, units);
  };
  if (channels > tile_side * 4) return with_units(Number<8>{});
  with_units(Number<2>{});
}

}  // namespace gencore::cuda
