// Convolutions as products without a copy of every window: in a row of pixels the taps of one kernel row and their
// channels are neighbours in memory, and so are the weights that meet them. A row of an output tile is thus a few
// stretches of the input's rows, and the tile kernel of gemm.h runs along them. Masked taps are in no stretch.
//
// The limit: two multiply-adds an instruction and lane for each tap that counts, as gemm.h. What it costs besides: a
// padded copy of the input rows of a task, and tiles that end with a row of pixels.
#include "gencore/conv.h"

#include "../runtime/table.h"
#include "activation.h"
#include "conv_kernels.h"
#include "conv_taps.h"

namespace gencore::GENCORE_LEVEL {
namespace {

constexpr double task_work = 1e6;           // multiply-adds of a task, about
constexpr std::int64_t weight_groups = 16;  // of images, whose gradients are summed apart

// --- images -------------------------------------------------------------------------------------------------------------

// Images as windows see them: `top` rows and `left` columns of zeros before them, which may be negative, and as many behind
// as are needed.
struct Source {
  const float* data;
  std::int64_t height, width, channels, top, left;
  std::int64_t step_h, step_w, extent_h, extent_w;  // between windows, and of one

  const float* image(std::int64_t n) const { return data + n * height * width * channels; }
  std::int64_t padded_rows(std::int64_t windows) const { return (windows - 1) * step_h + extent_h; }
  std::int64_t padded_width(std::int64_t windows) const { return (windows - 1) * step_w + extent_w; }
  bool plain(std::int64_t windows_h, std::int64_t windows_w) const {
    return top == 0 && left == 0 && padded_rows(windows_h) <= height && padded_width(windows_w) <= width;
  }
  // Rows [begin, begin + rows) of the padded image n, each `columns` pixels wide.
  void pad(std::int64_t n, std::int64_t begin, std::int64_t rows, std::int64_t columns, float* out) const {
    const auto bytes = [&](std::int64_t pixels) { return static_cast<std::size_t>(4 * pixels * channels); };
    const std::int64_t before = min_of(max_of(left, 0), columns), skipped = max_of(-left, 0);
    const std::int64_t inside = max_of(min_of(width - skipped, columns - before), 0);
    for (std::int64_t r = 0; r < rows; ++r, out += columns * channels) {
      const std::int64_t y = begin + r - top;
      if (y < 0 || y >= height) {
        std::memset(out, 0, bytes(columns));
        continue;
      }
      std::memset(out, 0, bytes(before));
      std::memcpy(out + before * channels, image(n) + (y * width + skipped) * channels, bytes(inside));
      std::memset(out + (before + inside) * channels, 0, bytes(columns - before - inside));
    }
  }
};

// The outputs of one phase: every so many rows and columns of the images.
struct Target {
  float* data;
  std::int64_t images, height, width;
  std::int64_t image_stride, row_stride, pixel_stride;
};

// out = epilogue(sums over the stretches of each window).
template <class Epilogue>
void sum_stretches(const Source& in, const Target& out, const Panels2d& all, const Epilogue& epilogue) {
  if (out.images == 0 || out.height <= 0 || out.width <= 0) return;
  double row_work = 1;
  for (std::int64_t p = 0; p < all.count; ++p) {
    row_work += static_cast<double>(out.width * all.panels[p].depth * all.panels[p].columns);
  }
  const auto wanted = static_cast<std::int64_t>(task_work / row_work);
  const std::int64_t rows_of_task = max_of(min_of(wanted, out.height), 1);
  const Cut blocks{out.height, ceil_div(out.height, rows_of_task)};
  const std::int64_t columns = in.padded_width(out.width), row_floats = columns * in.channels;
  const bool plain = in.plain(out.height, out.width);
  parallel_for(out.images * blocks.count, [&](std::int64_t task) {
    const std::int64_t n = task / blocks.count, block = task % blocks.count;
    const std::int64_t begin = blocks.begin(block), end = blocks.begin(block + 1);
    const std::int64_t rows = in.padded_rows(end - begin);
    Scratch scratch(static_cast<std::size_t>(all.most) * sizeof(Segment) +
                    (plain ? 0 : 4 * static_cast<std::size_t>(rows * row_floats)) + 128);
    auto* segments = scratch.carve<Segment>(static_cast<std::size_t>(all.most));
    const float* first = in.image(n) + begin * in.step_h * in.width * in.channels;
    std::int64_t row_stride = in.width * in.channels;
    if (!plain) {
      float* padded = scratch.carve<float>(static_cast<std::size_t>(rows * row_floats));
      in.pad(n, begin * in.step_h, rows, columns, padded);
      first = padded;
      row_stride = row_floats;
    }
    const Cut tiles{out.width, ceil_div(out.width, register_rows)};
    for (std::int64_t p = 0; p < all.count; ++p) {
      const Panel& panel = all.panels[p];
      const Span span = panel.span();
      for (std::int64_t y = begin; y < end; ++y) {
        const float* window_row = first + (y - begin) * in.step_h * row_stride;
        for (std::int64_t t = 0; t < tiles.count; ++t) {
          const std::int64_t x = tiles.begin(t), pixels = tiles.begin(t + 1) - x;
          for (std::int64_t s = 0; s < panel.count; ++s) {
            const Stretch& stretch = panel.stretches[s];
            segments[s] = {window_row + stretch.row * row_stride + x * in.step_w * in.channels + stretch.first,
                           panel.row(stretch.weights), stretch.length};
          }
          float* c = out.data + n * out.image_stride + y * out.row_stride + x * out.pixel_stride + panel.column;
          const TileArguments tile{
              segments, panel.count, in.step_w * in.channels, panel.width(), panel.width() - lanes, c, out.pixel_stride,
              span,     true};
          tile_kernel<false>(pixels, span)(tile);
          for (std::int64_t i = 0; i < pixels; ++i) {
            finish_row(c + i * out.pixel_stride, span.columns, panel.column, epilogue);
          }
        }
      }
    }
  });
}

// --- forward ------------------------------------------------------------------------------------------------------------

Source source_of(const conv::Geometry& op, const conv::Images<const float>& x, const Taps& taps) {
  return {x.data,      x.shape[1],  x.shape[2],  x.shape[3], op.pad_top,
          op.pad_left, op.stride_h, op.stride_w, taps.kh,    taps.kw};
}

}  // namespace

void conv2d(const conv::Conv2d& op) {
  const Taps taps(op, op.w);
  const std::int64_t depth = taps.kh * taps.kw * taps.c_in, channels = taps.c_out;
  if (channels == 0) return;
  Scratch scratch(Panels2d::bytes(channels, taps.groups, taps.kh, depth));
  const Panels2d all(scratch, channels, taps.groups, taps.kh, depth,
                     [&](std::int64_t g, Stretch* out) { return forward_stretches(taps, g, out); });
  parallel_for(all.count, [&](std::int64_t p) { pack_forward(taps, op.w.data, all.panels[p]); });
  const std::int64_t row = op.out.shape[2] * channels;
  const Target out{op.out.data, op.out.shape[0], op.out.shape[1], op.out.shape[2], op.out.shape[1] * row,
                   row,         channels};
  with_epilogue(op.activation, op.bias.data, channels, true,
                [&](const auto& epilogue) { sum_stretches(source_of(op, op.x, taps), out, all, epilogue); });
}

namespace {

// --- gradient for the input -----------------------------------------------------------------------------------------------

// Inputs y with the same remainder of y + pad by the stride meet the same taps: a phase. Along one axis: the first of its
// inputs, how many there are, its taps (last, last - stride, ... down to 0), and the output that the last tap meets.
struct Phase {
  std::int64_t first, count, last_tap, taps, output;

  Phase(std::int64_t phase, std::int64_t size, std::int64_t stride, std::int64_t pad, std::int64_t kernel)
      : first(phase), count(size > phase ? ceil_div(size - phase, stride) : 0) {
    const std::int64_t rest = (phase + pad) % stride;  // of its taps
    taps = rest < kernel ? ceil_div(kernel - rest, stride) : 0;
    last_tap = rest + (taps - 1) * stride;
    output = (phase + pad) / stride - (taps - 1);  // may be negative
  }
};

void input_phase(const conv::Conv2dInput& op, const Taps& taps, const Phase& rows, const Phase& columns) {
  const std::int64_t channels = taps.c_in, depth = rows.taps * columns.taps * taps.c_out;
  const std::int64_t most = max_of(rows.taps, 1);
  Scratch scratch(Panels2d::bytes(channels, taps.groups, most, depth));
  // Taps of a row from right to left: as the outputs that they meet go from left to right.
  const auto for_each_tap = [&](std::int64_t i, std::int64_t g, const auto& body) {
    const std::int64_t ky = rows.last_tap - i * op.stride_h;
    for (std::int64_t j = 0; j < columns.taps; ++j) {
      const std::int64_t kx = columns.last_tap - j * op.stride_w;
      if (kx >= taps.columns(ky)) continue;
      const Range seen = taps.outputs(ky, kx, g);
      if (!seen.empty()) body(ky, kx, j, seen);
    }
  };
  const Panels2d all(scratch, channels, taps.groups, most, depth, [&](std::int64_t g, Stretch* out) {
    std::int64_t count = 0, weights = 0;
    for (std::int64_t i = 0; i < rows.taps; ++i) {
      std::int64_t begin = -1, end = 0;
      for_each_tap(i, g, [&](std::int64_t, std::int64_t, std::int64_t j, const Range& seen) {
        if (begin < 0) begin = j * taps.c_out + seen.begin;
        end = j * taps.c_out + seen.end;
      });
      if (begin < 0) continue;
      out[count++] = {i, begin, end - begin, weights};
      weights += end - begin;
    }
    return count;
  });
  const std::int64_t colour = channels / taps.groups;
  parallel_for(all.count, [&](std::int64_t p) {
    const Panel& panel = all.panels[p];
    const std::int64_t g = panel.column / colour;
    for (std::int64_t s = 0; s < panel.count; ++s) {
      float* to = panel.weights + panel.stretches[s].weights * panel.width();
      for_each_tap(panel.stretches[s].row, g, [&](std::int64_t ky, std::int64_t kx, std::int64_t, const Range& seen) {
        const float* w = op.w.data + ((ky * taps.kw + kx) * channels + panel.column) * taps.c_out + seen.begin;
        pack_columns(seen.end - seen.begin, w, taps.c_out, panel.span(), to);
        to += (seen.end - seen.begin) * panel.width();
      });
    }
  });
  Source in{op.grad.data, op.grad.shape[1],       op.grad.shape[2], taps.c_out, -rows.output, -columns.output, 1, 1,
            most,         max_of(columns.taps, 1)};
  const std::int64_t row = op.out.shape[2] * channels;
  const Target out{op.out.data + rows.first * row + columns.first * channels,
                   op.out.shape[0],
                   rows.count,
                   columns.count,
                   op.out.shape[1] * row,
                   op.stride_h * row,
                   op.stride_w * channels};
  sum_stretches(in, out, all, Identity{});
}

// Adds the part of one tap, a plane of the size of grad, to a plane of the result, dy down and dx to the right.
void add_part(const conv::Conv2dInput& op, const float* part, std::int64_t dy, std::int64_t dx, float* out) {
  const std::int64_t width = op.out.shape[2], columns = op.grad.shape[2], stride = op.stride_w;
  const std::int64_t begin = dx < 0 ? min_of(ceil_div(-dx, stride), columns) : 0;
  const std::int64_t end = width > dx ? min_of(ceil_div(width - dx, stride), columns) : 0;
  for (std::int64_t y = 0; y < op.grad.shape[1]; ++y, part += columns) {
    const std::int64_t row = y * op.stride_h + dy;
    if (row < 0 || row >= op.out.shape[1]) continue;
    float* to = out + row * width + dx;
    if (stride == 1) {
      for (std::int64_t x = begin; x < end; ++x) to[x] += part[x];
    } else {
      for (std::int64_t x = begin; x < end; ++x) to[x * stride] += part[x];
    }
  }
}

// Few channels fill few lanes. Then one product makes every tap's part of the result, (taps, channels) by pixels, and the
// parts are added where they belong: lanes are pixels.
void input_by_taps(const conv::Conv2dInput& op, const Taps& taps) {
  const std::int64_t height = op.out.shape[1], width = op.out.shape[2], pixels = op.grad.shape[1] * op.grad.shape[2];
  const std::int64_t channels = taps.c_in, planes = height * width;
  // Taps that count come first in w; a centre with colours counts in part.
  std::int64_t whole = 0;
  for (std::int64_t ky = 0; ky < taps.kh; ++ky) whole += taps.columns(ky);
  const std::int64_t centre = taps.groups > 1 ? --whole : -1;
  const std::int64_t rows = (whole + (centre < 0 ? 0 : 1)) * channels, colour = channels / taps.groups;
  parallel_for(op.grad.shape[0], [&](std::int64_t n) {
    Scratch scratch(4 * static_cast<std::size_t>(rows * pixels + channels * planes) + 128);
    float* parts = scratch.carve<float>(static_cast<std::size_t>(rows * pixels));
    float* planar = scratch.carve<float>(static_cast<std::size_t>(channels * planes));
    const float* grad = op.grad.data + n * pixels * taps.c_out;
    gemm(whole * channels, pixels, taps.c_out, op.w.data, taps.c_out, 1, grad, 1, taps.c_out, parts, pixels,
         Identity{});
    for (std::int64_t g = 0; centre >= 0 && g < taps.groups; ++g) {
      const std::int64_t row = centre * channels + g * colour;
      const Range seen = taps.outputs(taps.kh / 2, taps.kw / 2, g);
      gemm(colour, pixels, seen.end - seen.begin, op.w.data + row * taps.c_out + seen.begin, taps.c_out, 1,
           grad + seen.begin, 1, taps.c_out, parts + row * pixels, pixels, Identity{});
    }
    std::memset(planar, 0, 4 * static_cast<std::size_t>(channels * planes));
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t tap = row / channels, dy = tap / taps.kw - op.pad_top, dx = tap % taps.kw - op.pad_left;
      add_part(op, parts + row * pixels, dy, dx, planar + row % channels * planes);
    }
    float* out = op.out.data + n * planes * channels;
    for (std::int64_t i = 0; i < planes; ++i) {
      for (std::int64_t c = 0; c < channels; ++c) out[i * channels + c] = planar[c * planes + i];
    }
  });
}

constexpr std::int64_t few_channels = 8;

}  // namespace

void conv2d_input(const conv::Conv2dInput& op) {
  const Taps taps(op, op.w);
  if (taps.c_in == 0) return;
  if (taps.c_in < few_channels) return input_by_taps(op, taps);
  for (std::int64_t y = 0; y < op.stride_h; ++y) {
    for (std::int64_t x = 0; x < op.stride_w; ++x) {
      input_phase(op, taps, Phase(y, op.out.shape[1], op.stride_h, op.pad_top, taps.kh),
                  Phase(x, op.out.shape[2], op.stride_w, op.pad_left, taps.kw));
    }
  }
}

namespace {

// --- gradient for the weights ---------------------------------------------------------------------------------------------

// One image: out, zero at taps that do not count. `padded` holds the image.
void weight_of_image(const conv::Conv2dWeight& op, const Taps& taps, const float* padded, std::int64_t row_floats,
                     const float* grad, Segment* segments, float* out) {
  const std::int64_t height = op.grad.shape[1], width = op.grad.shape[2], colour = taps.c_out / taps.groups;
  for (std::int64_t ky = 0; ky < taps.kh; ++ky) {
    const std::int64_t whole = taps.columns(ky);
    for (std::int64_t g = 0; whole > 0 && g < taps.groups; ++g) {
      const std::int64_t length = (whole - 1) * taps.c_in + taps.inputs(ky, whole - 1, g).end;
      const Cut tiles{length, ceil_div(length, register_rows)};
      const Cut panels{ceil_div(colour, lanes), ceil_div(colour, panel_columns)};
      for (std::int64_t p = 0; p < panels.count; ++p) {
        const std::int64_t begin = panels.begin(p) * lanes, column = g * colour + begin;
        const Span span(min_of(panels.begin(p + 1) * lanes, colour) - begin);
        for (std::int64_t t = 0; t < tiles.count; ++t) {
          const std::int64_t row = tiles.begin(t), rows = tiles.begin(t + 1) - row;
          for (std::int64_t y = 0; y < height; ++y) {
            segments[y] = {padded + (y * op.stride_h + ky) * row_floats + row, grad + y * width * taps.c_out + column,
                           width};
          }
          float* c = out + (ky * taps.kw * taps.c_in + row) * taps.c_out + column;
          const TileArguments tile{segments, height, op.stride_w * taps.c_in, taps.c_out, span.last(), c, taps.c_out,
                                   span,     true};
          tile_kernel<true>(rows, span)(tile);
        }
      }
    }
  }
}

}  // namespace

void conv2d_weight(const conv::Conv2dWeight& op) {
  const Taps taps(op, conv::detail::constant(op.out));
  const std::int64_t size = op.out.size(), n = op.x.shape[0], height = op.grad.shape[1], width = op.grad.shape[2];
  if (size == 0) return;
  const Source in = source_of(op, op.x, taps);
  const Cut groups{n, max_of(min_of(n, weight_groups), 1)};
  const std::int64_t columns = in.padded_width(max_of(width, 1)), rows = in.padded_rows(max_of(height, 1));
  const std::int64_t row_floats = columns * taps.c_in;
  Scratch sums(4 * static_cast<std::size_t>(groups.count * size) + 64);
  float* of_groups = sums.carve<float>(static_cast<std::size_t>(groups.count * size));
  parallel_for(groups.count, [&](std::int64_t group) {
    Scratch scratch(static_cast<std::size_t>(height) * sizeof(Segment) +
                    4 * static_cast<std::size_t>(rows * row_floats + size) + 256);
    auto* segments = scratch.carve<Segment>(static_cast<std::size_t>(height));
    float* padded = scratch.carve<float>(static_cast<std::size_t>(rows * row_floats));
    float* one = scratch.carve<float>(static_cast<std::size_t>(size));
    float* sum = of_groups + group * size;
    std::memset(one, 0, 4 * static_cast<std::size_t>(size));
    std::memset(sum, 0, 4 * static_cast<std::size_t>(size));
    for (std::int64_t i = groups.begin(group); i < groups.begin(group + 1); ++i) {
      in.pad(i, 0, rows, columns, padded);
      weight_of_image(op, taps, padded, row_floats, op.grad.data + i * height * width * taps.c_out, segments, one);
      for (std::int64_t j = 0; j < size; ++j) sum[j] += one[j];
    }
  });
  constexpr std::int64_t stretch = 1024;
  parallel_for(ceil_div(size, stretch), [&](std::int64_t task) {
    for (std::int64_t j = task * stretch; j < min_of(size, (task + 1) * stretch); ++j) {
      double total = 0;
      for (std::int64_t group = 0; group < groups.count; ++group) {
        total += static_cast<double>(of_groups[group * size + j]);
      }
      op.out.data[j] = static_cast<float>(total);
    }
  });
}

void fill_conv(runtime::Table& table) {
  table.conv.Conv2d = conv2d;
  table.conv.Conv2dInput = conv2d_input;
  table.conv.Conv2dWeight = conv2d_weight;
}

}  // namespace gencore::GENCORE_LEVEL
