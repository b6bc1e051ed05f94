// Convolutions, and the gradient for their input. Each element is one chain of fused multiply-adds from 0, in the CPU's
// order, whatever the tile (the CPU adds chains of single taps where there are fewer than 8 input channels).
//
// The limit: that of gemm.cuh for the taps that count, 57 TFLOP/s on an H100, where channels fill tiles of 32 or 128: 32
// channels, a kernel row of 3 and 28 x 28 pixels fill 12 steps of 8 entirely. A step reads each pixel's 8 floats, a sector.
#include "activation.cuh"
#include "conv.cuh"
#include "conv_kernels.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using conv::Conv2d;
using conv::Conv2dInput;

// Pixels in rows: line i of `count` is pixel x of row y of image n.
struct Pixels {
  std::int64_t count;
  int height, width;

  __device__ bool place(std::int64_t i, std::int64_t& n, int& y, int& x) const {
    std::int64_t row, column;
    divide(i < count ? i : 0, width, row, column);
    divide(row, height, n, row);
    y = static_cast<int>(row);
    x = static_cast<int>(column);
    return i < count;
  }
};

// --- forward -------------------------------------------------------------------------------------------------------------

template <int rows, int units>
struct ForwardSteps {
  using Own = StepTile<rows, units>;
  using Element = float;
  using A = typename Own::template Share<rows, true>;
  using B = typename Own::template Share<units, false>;

  const Conv2d& op;
  const Taps& taps;
  int group, begin, end;  // channels, of one colour
  const float* image[A::elements];
  int top[A::elements], left[A::elements];  // where the window begins; floats from the row's beginning
  int ky = 0, at = 0, length;

  __device__ ForwardSteps(const Conv2d& op, const Taps& taps, const Pixels& pixels, std::int64_t first, int group,
                          int begin, int end)
      : op(op), taps(taps), group(group), begin(begin), end(end) {
#pragma unroll
    for (int s = 0; s < A::elements; ++s) {
      std::int64_t n;
      int y, x;
      const bool exists = pixels.place(first + A::line(s), n, y, x);
      image[s] = op.x.data + n * op.x.shape[1] * op.x.shape[2] * op.x.shape[3];
      top[s] = exists ? y * static_cast<int>(op.stride_h) - static_cast<int>(op.pad_top) : -taps.kh;
      left[s] = (x * static_cast<int>(op.stride_w) - static_cast<int>(op.pad_left)) * taps.c_in;
    }
    length = taps.stretch(0, group);
    skip();
  }
  __device__ bool valid() const { return ky < taps.kh; }
  __device__ void next() {
    at += tile_depth;
    skip();
  }
  __device__ void skip() {
    while (ky < taps.kh && at >= length) {
      at = 0;
      if (++ky < taps.kh) length = taps.stretch(ky, group);
    }
  }
  __device__ void fetch(A& a, B& b) const {
    const int height = static_cast<int>(op.x.shape[1]), row_floats = static_cast<int>(op.x.shape[2]) * taps.c_in;
    a.fetch([&](int s, int, int t) {
      const int y = top[s] + ky, x = left[s] + at + t;
      const bool exists = at + t < length && y >= 0 && y < height && x >= 0 && x < row_floats;
      return exists ? __ldg(image[s] + static_cast<std::int64_t>(y) * row_floats + x) : 0.0f;
    });
    const float* w = op.w.data + (static_cast<std::int64_t>(ky) * taps.kw * taps.c_in + at) * taps.c_out + begin;
    b.fetch([&](int, int line, int t) {
      const bool exists = at + t < length && begin + line < end;
      return exists ? __ldg(w + static_cast<std::int64_t>(t) * taps.c_out + line) : 0.0f;
    });
  }
};

template <int rows, int units>
__global__ void __launch_bounds__(block_threads, 2)
    convolve(Conv2d op, Taps taps, Pixels pixels, ChannelTiles channels) {
  using Own = StepTile<rows, units>;
  __shared__ typename Own::Memory memory;
  const int across = taps.groups * channels.of_colour, tile = static_cast<int>(blockIdx.x) % across;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) / across * Own::height;
  const int begin = channels.begin(tile), end = channels.end(tile);
  ForwardSteps<rows, units> steps(op, taps, pixels, first, channels.group(tile), begin, end);
  float sum[rows][units] = {};
  Own::sum_up(memory, steps, sum);
  Own::each(sum, [&](int line, int unit, float value) {
    const int channel = begin + unit;
    if (first + line >= pixels.count || channel >= end) return;
    if (op.bias.given()) value += op.bias[channel];
    op.out.data[(first + line) * taps.c_out + channel] = activated(op.activation, value);
  });
}

}  // namespace

void conv2d(const Conv2d& op) {
  if (op.out.size() == 0) return;
  const Taps taps(op, op.w.shape);
  const Pixels pixels{op.out.size() / taps.c_out, static_cast<int>(op.out.shape[1]), static_cast<int>(op.out.shape[2])};
  with_conv_tile(op, pixels.count, taps.groups, taps.c_out / taps.groups, [&](auto rows, auto units) {
    const ChannelTiles channels(taps.c_out, taps.groups, tile_side * units);
    launch_blocks(op, ceil_div(pixels.count, tile_side * rows) * taps.groups * channels.of_colour, block_threads, 0,
                  convolve<decltype(rows)::value, decltype(units)::value>, op, taps, pixels, channels);
  });
}

namespace {

// --- gradient for the input ------------------------------------------------------------------------------------------------

// Inputs with the same remainder of place + pad by the stride meet the same taps: a phase. Along one axis: its inputs are
// first, first + stride, ...; its taps last, last - stride, ... down to 0, of which the i-th meets output i + `output` of
// the first input.
struct Phase {
  int first, count, stride, last, taps, output;

  Phase(std::int64_t phase, std::int64_t size, std::int64_t stride, std::int64_t pad, std::int64_t kernel)
      : first(static_cast<int>(phase)),
        count(static_cast<int>(size > phase ? ceil_div(size - phase, stride) : 0)),
        stride(static_cast<int>(stride)) {
    const std::int64_t rest = (phase + pad) % stride;
    taps = static_cast<int>(rest < kernel ? ceil_div(kernel - rest, stride) : 0);
    last = static_cast<int>(rest) + (taps - 1) * this->stride;
    output = static_cast<int>((phase + pad) / stride) - (taps - 1);
  }
};

template <int rows, int units>
struct InputSteps {
  using Own = StepTile<rows, units>;
  using Element = float;
  using A = typename Own::template Share<rows, true>;
  using B = typename Own::template Share<units, true>;

  const Conv2dInput& op;
  const Taps& taps;
  const Phase &down, &right;
  int group, begin, end;
  const float* image[A::elements];
  int top[A::elements], left[A::elements];  // the outputs that the first taps meet
  int i = 0, j = -1, at = 0;
  Range seen{0, 0};

  __device__ InputSteps(const Conv2dInput& op, const Taps& taps, const Phase& down, const Phase& right,
                        const Pixels& pixels, std::int64_t first, int group, int begin, int end)
      : op(op), taps(taps), down(down), right(right), group(group), begin(begin), end(end) {
#pragma unroll
    for (int s = 0; s < A::elements; ++s) {
      std::int64_t n;
      int y, x;
      const bool exists = pixels.place(first + A::line(s), n, y, x);
      image[s] = op.grad.data + n * op.grad.shape[1] * op.grad.shape[2] * op.grad.shape[3];
      top[s] = exists ? down.output + y : -down.taps;
      left[s] = right.output + x;
    }
    skip();
  }
  __device__ int ky() const { return down.last - i * down.stride; }
  __device__ int kx() const { return right.last - j * right.stride; }
  __device__ bool valid() const { return i < down.taps; }
  __device__ void next() {
    at += tile_depth;
    skip();
  }
  // To the next tap that counts, where this one has no more channels.
  __device__ void skip() {
    while (i < down.taps && at >= seen.end) {
      if (++j >= right.taps) {
        j = -1;
        ++i;
        continue;
      }
      if (kx() >= taps.columns(ky())) continue;
      seen = taps.outputs(ky(), kx(), group);
      at = seen.begin;
    }
  }
  __device__ void fetch(A& a, B& b) const {
    const int height = static_cast<int>(op.grad.shape[1]), width = static_cast<int>(op.grad.shape[2]);
    a.fetch([&](int s, int, int t) {
      const int y = top[s] + i, x = left[s] + j;
      const bool exists = at + t < seen.end && y >= 0 && y < height && x >= 0 && x < width;
      return exists ? __ldg(image[s] + (static_cast<std::int64_t>(y) * width + x) * taps.c_out + at + t) : 0.0f;
    });
    const float* w = op.w.data + (static_cast<std::int64_t>(ky() * taps.kw + kx()) * taps.c_in + begin) * taps.c_out +
                     at;
    b.fetch([&](int, int line, int t) {
      const bool exists = at + t < seen.end && begin + line < end;
      return exists ? __ldg(w + static_cast<std::int64_t>(line) * taps.c_out + t) : 0.0f;
    });
  }
};

template <int rows, int units>
__global__ void __launch_bounds__(block_threads, 2)
    convolve_back(Conv2dInput op, Taps taps, Phase down, Phase right, Pixels pixels, ChannelTiles channels) {
  using Own = StepTile<rows, units>;
  __shared__ typename Own::Memory memory;
  const int across = taps.groups * channels.of_colour, tile = static_cast<int>(blockIdx.x) % across;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) / across * Own::height;
  const int begin = channels.begin(tile), end = channels.end(tile);
  InputSteps<rows, units> steps(op, taps, down, right, pixels, first, channels.group(tile), begin, end);
  float sum[rows][units] = {};
  Own::sum_up(memory, steps, sum);
  Own::each(sum, [&](int line, int unit, float value) {
    std::int64_t n;
    int y, x;
    if (!pixels.place(first + line, n, y, x) || begin + unit >= end) return;
    const std::int64_t row = n * op.out.shape[1] + down.first + static_cast<std::int64_t>(y) * down.stride;
    const std::int64_t pixel = row * op.out.shape[2] + right.first + static_cast<std::int64_t>(x) * right.stride;
    op.out.data[pixel * taps.c_in + begin + unit] = value;
  });
}

void input_phase(const Conv2dInput& op, const Taps& taps, const Phase& down, const Phase& right) {
  const Pixels pixels{op.out.shape[0] * down.count * right.count, down.count, right.count};
  if (pixels.count == 0) return;
  with_conv_tile(op, pixels.count, taps.groups, taps.c_in / taps.groups, [&](auto rows, auto units) {
    const ChannelTiles channels(taps.c_in, taps.groups, tile_side * units);
    launch_blocks(op, ceil_div(pixels.count, tile_side * rows) * taps.groups * channels.of_colour, block_threads, 0,
                  convolve_back<decltype(rows)::value, decltype(units)::value>, op, taps, down, right, pixels,
                  channels);
  });
}

}  // namespace

void conv2d_input(const Conv2dInput& op) {
  if (op.out.size() == 0) return;
  const Taps taps(op, op.w.shape);
  for (std::int64_t y = 0; y < op.stride_h && y < op.out.shape[1]; ++y) {
    for (std::int64_t x = 0; x < op.stride_w && x < op.out.shape[2]; ++x) {
      input_phase(op, taps, Phase(y, op.out.shape[1], op.stride_h, op.pad_top, taps.kh),
                  Phase(x, op.out.shape[2], op.stride_w, op.pad_left, taps.kw));
    }
  }
}

void fill_conv(runtime::Table& table) {
  table.conv.Conv2d = conv2d;
  table.conv.Conv2dInput = conv2d_input;
}

}  // namespace gencore::cuda
