// A convolution's gradient for the weights: for each kernel row a product of stretches of the images' rows with grad, over
// pixels. A block sums its tile over a group of images, each image in a chain of its own, and leaves it in memory; a second
// pass adds the groups in order, in float64. Groups follow from the sizes alone.
//
// The limit: that of gemm.cuh; a kernel row of 3 with 32 channels fills 96 of a tile's 128 lines.
#include "conv.cuh"
#include "conv_kernels.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using conv::Conv2dWeight;

constexpr std::int64_t enough_blocks = 512;

template <int rows, int units>
struct WeightSteps {
  using Own = StepTile<rows, units>;
  using Element = float;
  using A = typename Own::template Share<rows, false>;
  using B = typename Own::template Share<units, false>;

  const Conv2dWeight& op;
  const Taps& taps;
  const float *image, *grad;
  int ky, first, length, begin, end;  // of the stretch, and of channels
  int pixels, height, width;          // of grad
  int x[A::elements], y[A::elements];
  int at = 0;

  __device__ WeightSteps(const Conv2dWeight& op, const Taps& taps, std::int64_t n, int ky, int first, int length,
                         int begin, int end)
      : op(op),
        taps(taps),
        image(op.x.data + n * op.x.shape[1] * op.x.shape[2] * op.x.shape[3]),
        ky(ky),
        first(first),
        length(length),
        begin(begin),
        end(end),
        height(static_cast<int>(op.grad.shape[1])),
        width(static_cast<int>(op.grad.shape[2])) {
    pixels = height * width;
    grad = op.grad.data + n * pixels * taps.c_out;
#pragma unroll
    for (int s = 0; s < A::elements; ++s) {
      x[s] = A::depth(s);
      y[s] = 0;
      wrap(s);
    }
  }
  __device__ void wrap(int s) {
    while (x[s] >= width && y[s] < height) {
      x[s] -= width;
      ++y[s];
    }
  }
  __device__ bool valid() const { return at < pixels; }
  __device__ void next() {
    at += tile_depth;
#pragma unroll
    for (int s = 0; s < A::elements; ++s) {
      x[s] += tile_depth;
      wrap(s);
    }
  }
  __device__ void fetch(A& a, B& b) const {
    const int rows_in = static_cast<int>(op.x.shape[1]), row_floats = static_cast<int>(op.x.shape[2]) * taps.c_in;
    a.fetch([&](int s, int line, int) {
      const int row = y[s] * static_cast<int>(op.stride_h) - static_cast<int>(op.pad_top) + ky;
      const int column = (x[s] * static_cast<int>(op.stride_w) - static_cast<int>(op.pad_left)) * taps.c_in + first +
                         line;
      const bool exists = y[s] < height && first + line < length && row >= 0 && row < rows_in && column >= 0 &&
                          column < row_floats;
      return exists ? __ldg(image + static_cast<std::int64_t>(row) * row_floats + column) : 0.0f;
    });
    b.fetch([&](int, int line, int t) {
      const bool exists = at + t < pixels && begin + line < end;
      return exists ? __ldg(grad + static_cast<std::int64_t>(at + t) * taps.c_out + begin + line) : 0.0f;
    });
  }
};

// How the result is cut: kernel rows, tiles of the longest stretch, tiles of channels.
struct Cut {
  int lines, across;  // tiles
  std::int64_t groups;
  GENCORE_INLINE std::int64_t tiles(const Taps& taps) const { return std::int64_t{1} * taps.kh * lines * across; }
};

template <int rows, int units>
__global__ void __launch_bounds__(block_threads, 2)
    sum_images(Conv2dWeight op, Taps taps, Cut cut, ChannelTiles channels, float* sums) {
  using Own = StepTile<rows, units>;
  __shared__ typename Own::Memory memory;
  std::int64_t group, rest;
  divide(blockIdx.x, cut.tiles(taps), group, rest);
  const int tile = static_cast<int>(rest) % cut.across, line_tile = static_cast<int>(rest) / cut.across % cut.lines;
  const int ky = static_cast<int>(rest) / cut.across / cut.lines, first = line_tile * Own::height;
  const int begin = channels.begin(tile), end = channels.end(tile), length = taps.stretch(ky, channels.group(tile));
  if (first >= length) return;
  const std::int64_t images = op.x.shape[0];
  const std::int64_t from = images * group / cut.groups, to = images * (group + 1) / cut.groups;
  float* own = sums + (group * taps.kh + ky) * taps.kw * taps.c_in * taps.c_out;
  for (std::int64_t n = from; n < to; ++n) {
    WeightSteps<rows, units> steps(op, taps, n, ky, first, length, begin, end);
    float sum[rows][units] = {};
    Own::sum_up(memory, steps, sum);
    Own::each(sum, [&](int line, int unit, float value) {
      if (first + line >= length || begin + unit >= end) return;
      float& total = own[static_cast<std::int64_t>(first + line) * taps.c_out + begin + unit];
      total = n == from ? value : total + value;
    });
  }
}

// Groups in order; 0 at masked taps.
struct AddGroups {
  Taps taps;
  const float* sums;
  std::int64_t groups, size;
  float* out;

  __device__ void operator()(std::int64_t i) const {
    std::int64_t row, channel, ky, at;
    divide(i, taps.c_out, row, channel);
    divide(row, taps.kw * taps.c_in, ky, at);
    const int colour = static_cast<int>(channel) / (taps.c_out / taps.groups);
    double total = 0;
    if (at < taps.stretch(static_cast<int>(ky), colour)) {
      for (std::int64_t g = 0; g < groups; ++g) total += static_cast<double>(sums[g * size + i]);
    }
    out[i] = static_cast<float>(total);
  }
};

}  // namespace

void conv2d_weight(const Conv2dWeight& op) {
  const std::int64_t size = op.out.size(), images = op.x.shape[0];
  if (size == 0) return;
  const Taps taps(op, op.out.shape);
  const int longest = taps.kw * taps.c_in;
  const auto run = [&](auto rows, auto units) {
    const ChannelTiles channels(taps.c_out, taps.groups, tile_side * units);
    Cut cut{static_cast<int>(ceil_div(longest, tile_side * rows)), taps.groups * channels.of_colour, 0};
    const std::int64_t wanted = ceil_div(enough_blocks, cut.tiles(taps));
    cut.groups = wanted < images ? wanted : images;
    DeviceScratch scratch(op, DeviceScratch::bytes<float>(cut.groups * size));
    float* sums = scratch.carve<float>(cut.groups * size);
    launch_blocks(op, cut.groups * cut.tiles(taps), block_threads, 0,
                  sum_images<decltype(rows)::value, decltype(units)::value>, op, taps, cut, channels, sums);
    for_each_element(op, size, AddGroups{taps, sums, cut.groups, size, op.out.data});
  };
  const bool wide = taps.c_out / taps.groups > tile_side * 4;
  if (longest > tile_side * 2) {
    wide ? run(Number<8>{}, Number<8>{}) : run(Number<8>{}, Number<2>{});
  } else {
    wide ? run(Number<2>{}, Number<8>{}) : run(Number<2>{}, Number<2>{});
  }
}

void fill_conv_weight(runtime::Table& table) { table.conv.Conv2dWeight = conv2d_weight; }

}  // namespace gencore::cuda
