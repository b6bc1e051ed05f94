// Samples of stacks of masked convolutions, pixel by pixel. Each layer keeps the rows of its result that later pixels
// read, and computes the new pixel of eight images together: the rows of a tile are images, and what the tile sums are
// the stretches of conv.cpp, so the bits are those of a convolution of the whole image.
//
// The limit: the products of one forward pass, 240 GFLOP/s where channels fill vectors. 16 images 28 x 28 of a PixelCNN
// with 7 blocks of 16 features: 0.6 GFLOP, 2.6 ms on a core; one forward pass a pixel does 784 times that.
#include "gencore/pixels.h"

#include "../runtime/reject.h"
#include "../runtime/table.h"
#include "activation.h"
#include "conv_taps.h"
#include "gate.h"
#include "logistic_mixture.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using conv::PixelSample;

constexpr std::int64_t images_of_task = register_rows;

// --- draws --------------------------------------------------------------------------------------------------------------

// 32 bits of a unit, the head's first.
struct UnitDraw {
  Key key;
  philox::Stream head, tail;

  UnitDraw(const sample::Coordinates& op, std::int64_t row)
      : key(op.key),
        head(philox::stream(philox::pixel_head, static_cast<std::uint64_t>(op.step),
                            static_cast<std::uint64_t>(op.first_row + row))),
        tail(philox::stream(philox::pixel_tail, static_cast<std::uint64_t>(op.step),
                            static_cast<std::uint64_t>(op.first_row + row))) {}

  double uniform(std::int64_t unit) const {
    const std::uint32_t bits = philox::half_at(key, head, unit) << 16 | philox::half_at(key, tail, unit);
    return (static_cast<double>(bits) + 0.5) * 0x1p-32;
  }
};

float first_lane(F v) {
  float lane[lanes];
  store(lane, v);
  return lane[0];
}

constexpr int no_level = -1;  // by logits that are no distribution: NaN, or without a largest one

bool any_nan(const float* x, std::int64_t count) {
  for (std::int64_t k = 0; k < count; ++k) {
    if (x[k] != x[k]) return true;
  }
  return false;
}

// A bit by its logit; a level by its logits, by running sums in float64, the last one of positive mass where rounding
// leaves none.
int draw_unit(const float* logits, std::int64_t count, float temperature, double u) {
  if (any_nan(logits, count)) return no_level;
  const float scale = 1.0f / temperature;
  if (count == 1) return u < static_cast<double>(first_lane(logistic(splat(logits[0] * scale)))) ? 1 : 0;
  float mass[256 + lanes];
  float top = -__builtin_inff();
  for (std::int64_t k = 0; k < count; ++k) top = logits[k] > top ? logits[k] : top;
  if (__builtin_isinf(top)) return no_level;
  double total = 0;
  for (std::int64_t k = 0; k < count; k += lanes) {
    const int valid = static_cast<int>(min_of(count - k, lanes));
    store(mass + k, exp((load_first(logits + k, valid) - top) * scale));
    for (int i = 0; i < valid; ++i) total += static_cast<double>(mass[k + i]);
  }
  const double target = u * total;
  double sum = 0;
  std::int64_t found = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    if (!(mass[k] > 0)) continue;
    found = k;
    sum += static_cast<double>(mass[k]);
    if (target < sum) break;
  }
  return static_cast<int>(found);
}

// The same from the parameters of a mixture.
int draw_level(const float* mixture, std::int64_t mixtures, std::int64_t levels, float temperature, double u) {
  if (any_nan(mixture, 3 * mixtures)) return no_level;
  float logits[256 + lanes];
  level_log_probs(mixture, mixtures, Bins(levels), logits);
  return draw_unit(logits, levels, temperature, u);
}

void pixel_draw(const conv::PixelDraw& op) {
  for (std::int64_t r = 0; r < op.logits.shape[0]; ++r) {
    const double u = UnitDraw(op, r).uniform(op.unit);
    const int drawn = op.n_mixtures > 0 ? draw_level(op.logits.row(r), op.n_mixtures, op.levels, op.temperature, u)
                                        : draw_unit(op.logits.row(r), op.logits.shape[1], op.temperature, u);
    if (drawn == no_level) runtime::reject_not_finite(op.name, "logits", op.logits.data, op.logits.size());
    op.out[r] = static_cast<std::uint8_t>(drawn);
  }
}

// --- maps ---------------------------------------------------------------------------------------------------------------

// The result of a layer for the images of a task: the rows that are still read, one in the place of another, with zeros
// on both sides. Row 0 of a kernel that reaches above the image finds places that nothing was written to.
struct Map {
  std::int64_t channels, rows, left, width;
  bool row_by_row;     // complete before the first pixel of a row is drawn
  std::int64_t begin;  // in the memory of a task

  std::int64_t image_floats() const { return rows * width * channels; }
  float* at(float* memory, std::int64_t y, std::int64_t x) const {
    return memory + begin + ((y + rows) % rows * width + x + left) * channels;
  }
};

struct Step {
  const std::int64_t* layer;
  const float* bias;
  bool bias_of_classes;  // a row for each
  Panel* panels;
  std::int64_t panel_count, most;

  conv::Layer kind() const { return static_cast<conv::Layer>(layer[conv::layer_kind]); }
  std::int64_t src() const { return layer[conv::layer_src]; }
  std::int64_t kh() const { return layer[conv::layer_kh]; }
  std::int64_t kw() const { return layer[conv::layer_kw]; }
  conv::Mask mask() const { return static_cast<conv::Mask>(layer[conv::layer_mask]); }
  Taps taps(std::int64_t groups) const {
    return Taps({kh(), kw(), layer[conv::layer_c_in], layer[conv::layer_c_out]}, mask(), groups);
  }
};

// The stack: maps[0] is the image, maps[i + 1] the result of steps[i].
struct Stack {
  Step* steps;
  Map* maps;
  std::int64_t count, groups, floats = 0, segments = 1;

  static std::size_t bytes(const PixelSample& op) {
    const std::int64_t n = op.layers.shape[0];
    std::size_t total = static_cast<std::size_t>(n) * sizeof(Step) + static_cast<std::size_t>(n + 1) * sizeof(Map) +
                        256;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t* l = op.layers.row(i);
      if (l[conv::layer_kind] != 0) continue;
      total += Panels2d::bytes(l[conv::layer_c_out], op.channel_groups, l[conv::layer_kh],
                               l[conv::layer_kh] * l[conv::layer_kw] * l[conv::layer_c_in]);
    }
    return total;
  }

  Stack(const PixelSample& op, Scratch& scratch)
      : steps(scratch.carve<Step>(static_cast<std::size_t>(op.layers.shape[0]))),
        maps(scratch.carve<Map>(static_cast<std::size_t>(op.layers.shape[0] + 1))),
        count(op.layers.shape[0]),
        groups(op.channel_groups) {
    const std::int64_t columns = op.out.shape[2];
    maps[0] = {op.out.shape[3], 1, 0, 0, false, 0};
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t* layer = op.layers.row(i);
      steps[i] = {layer, nullptr, false, nullptr, 0, 0};
      maps[i + 1] = {layer[conv::layer_c_out], 1, 0, 0, row_by_row(steps[i]), 0};
      if (steps[i].kind() == conv::Layer::convolve) prepare(op, steps[i], scratch);
    }
    for (std::int64_t m = 0; m <= count; ++m) {  // what readers need
      std::int64_t right = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        if (steps[i].kind() != conv::Layer::convolve || steps[i].src() != m) continue;
        maps[m].rows = max_of(maps[m].rows, steps[i].kh() / 2 + 1);
        maps[m].left = max_of(maps[m].left, steps[i].kw() / 2);
        right = max_of(right, steps[i].kw() - 1 - steps[i].kw() / 2);
      }
      maps[m].width = maps[m].left + columns + right;
      maps[m].begin = floats;
      floats += round_up(maps[m].image_floats() * images_of_task, 16);
    }
  }

 private:
  bool row_by_row(const Step& s) const {
    const std::int64_t src2 = s.kind() == conv::Layer::add ? s.layer[conv::layer_src2] : s.src();
    return conv::comes_row_by_row(s.kind(), s.mask(), s.kh(), s.kw(),
                                  maps[s.src()].row_by_row && maps[src2].row_by_row);
  }
  void prepare(const PixelSample& op, Step& s, Scratch& scratch) {
    const Taps taps = s.taps(groups);
    const float* w = op.params[s.layer[conv::layer_weight]].data;
    if (const std::int64_t bias = s.layer[conv::layer_bias]; bias >= 0) {
      s.bias = op.params[bias].data;
      s.bias_of_classes = op.params[bias].size() != taps.c_out;
    }
    const Panels2d all(scratch, taps.c_out, groups, taps.kh, taps.kh * taps.kw * taps.c_in,
                       [&](std::int64_t g, Stretch* out) { return forward_stretches(taps, g, out); });
    for (std::int64_t p = 0; p < all.count; ++p) pack_forward(taps, w, all.panels[p]);
    s.panels = all.panels;
    s.panel_count = all.count;
    s.most = all.most;
    segments = max_of(segments, all.most);
  }
};

// --- one pixel ----------------------------------------------------------------------------------------------------------

struct Place {
  float* memory;
  Segment* segments;
  const std::int64_t* labels;  // of the task's images
  std::int64_t images, y, x, colour;
};

void convolve(const Stack& stack, const Step& s, const Map& to, const Place& at) {
  const Map& from = stack.maps[s.src()];
  const std::int64_t colour = to.channels / stack.groups;
  const auto activation = static_cast<dense::Activation>(s.layer[conv::layer_activation]);
  for (std::int64_t p = 0; p < s.panel_count; ++p) {
    const Panel& panel = s.panels[p];
    if (panel.column / colour != at.colour) continue;
    for (std::int64_t i = 0; i < panel.count; ++i) {
      const Stretch& stretch = panel.stretches[i];
      at.segments[i] = {from.at(at.memory, at.y + stretch.row - s.kh() / 2, at.x - s.kw() / 2) + stretch.first,
                        panel.row(stretch.weights), stretch.length};
    }
    const Span span = panel.span();
    float* c = to.at(at.memory, at.y, at.x) + panel.column;
    const TileArguments tile{
        at.segments, panel.count, from.image_floats(), panel.width(), panel.width() - lanes, c, to.image_floats(),
        span,        true};
    tile_kernel<false>(at.images, span)(tile);
    const auto finish = [&](std::int64_t begin, std::int64_t end, const float* bias) {
      with_epilogue(activation, bias, to.channels, true, [&](const auto& epilogue) {
        for (std::int64_t n = begin; n < end; ++n) {
          finish_row(c + n * to.image_floats(), span.columns, panel.column, epilogue);
        }
      });
    };
    if (!s.bias_of_classes) {
      finish(0, at.images, s.bias);
    } else {
      for (std::int64_t n = 0; n < at.images; ++n) finish(n, n + 1, s.bias + at.labels[n] * to.channels);
    }
  }
}

void element_by_element(const Stack& stack, const Step& s, const Map& to, const Place& at) {
  const std::int64_t colour = to.channels / stack.groups, first = at.colour * colour;
  const bool gated = s.kind() == conv::Layer::gate;
  const Map &a = stack.maps[s.src()],
            &b = stack.maps[s.kind() == conv::Layer::add ? s.layer[conv::layer_src2] : s.src()];
  for (std::int64_t n = 0; n < at.images; ++n) {
    const float* x = a.at(at.memory, at.y, at.x) + n * a.image_floats() + (gated ? 2 * first : first);
    const float* y = b.at(at.memory, at.y, at.x) + n * b.image_floats() + first;
    float* out = to.at(at.memory, at.y, at.x) + n * to.image_floats() + first;
    if (gated) {
      gate(x, colour, out);
    } else if (s.kind() == conv::Layer::add) {
      for (std::int64_t c = 0; c < colour; ++c) out[c] = x[c] + y[c];
    } else {
      for (std::int64_t c = 0; c < colour; ++c) out[c] = x[c] > 0 ? x[c] : 0.0f;
    }
  }
}

void run_layer(const Stack& stack, std::int64_t i, const Place& at) {
  if (stack.steps[i].kind() == conv::Layer::convolve) {
    convolve(stack, stack.steps[i], stack.maps[i + 1], at);
  } else {
    element_by_element(stack, stack.steps[i], stack.maps[i + 1], at);
  }
}

// What is complete before the first pixel of a row is drawn: layer after layer, each for the whole row.
void begin_row(const Stack& stack, std::int64_t width, Place at) {
  for (std::int64_t i = 0; i < stack.count; ++i) {
    if (!stack.maps[i + 1].row_by_row) continue;
    for (at.x = 0; at.x < width; ++at.x) {
      for (at.colour = 0; at.colour < stack.groups; ++at.colour) run_layer(stack, i, at);
    }
  }
}

// Draws the colours of a pixel that are now known, and puts them into the image's map.
void draw_pixel(const PixelSample& op, const Stack& stack, const Place& at, std::int64_t first_image, Flag& wrong) {
  const std::int64_t colours = op.out.shape[3], logits = conv::detail::logits_of(op.levels, op.n_mixtures);
  const std::int64_t begin = stack.groups == 1 ? 0 : at.colour, end = stack.groups == 1 ? colours : at.colour + 1;
  const Map &image = stack.maps[0], &last = stack.maps[stack.count];
  const std::int64_t pixel = at.y * op.out.shape[2] + at.x, floats = op.out.shape[1] * op.out.shape[2] * colours;
  const float unit = 1.0f / static_cast<float>(op.levels - 1);
  for (std::int64_t n = 0; n < at.images; ++n) {
    const std::int64_t row = first_image + n;
    const UnitDraw draw(op, row);
    for (std::int64_t c = begin; c < end; ++c) {
      const std::int64_t place = pixel * colours + c;
      std::uint8_t& out = op.out.data[row * floats + place];
      if (op.keep.given() && op.keep.data[(op.keep.shape[0] == 1 ? 0 : row) * floats + place] != 0) {
        out = op.given.data[row * floats + place];
      } else {
        const float* from = last.at(at.memory, at.y, at.x) + n * last.image_floats() + c * logits;
        const double u = draw.uniform(place);
        const int drawn = op.n_mixtures > 0 ? draw_level(from, op.n_mixtures, op.levels, op.temperature, u)
                                            : draw_unit(from, logits, op.temperature, u);
        if (drawn == no_level) wrong.raise();
        out = static_cast<std::uint8_t>(drawn);
      }
      (image.at(at.memory, at.y, at.x) + n * image.image_floats())[c] = static_cast<float>(out) * unit;
    }
  }
}

void pixel_sample(const PixelSample& op) {
  const std::int64_t images = op.out.shape[0], height = op.out.shape[1], width = op.out.shape[2];
  if (images * height * width * op.out.shape[3] == 0) return;
  Scratch scratch(Stack::bytes(op));
  const Stack stack(op, scratch);
  Flag wrong;
  parallel_for(ceil_div(images, images_of_task), [&](std::int64_t task) {
    const std::int64_t first = task * images_of_task;
    Scratch local(4 * static_cast<std::size_t>(stack.floats) +
                  static_cast<std::size_t>(stack.segments) * sizeof(Segment) + 256);
    float* memory = local.carve<float>(static_cast<std::size_t>(stack.floats));
    std::memset(memory, 0, 4 * static_cast<std::size_t>(stack.floats));
    Place at{memory,
             local.carve<Segment>(static_cast<std::size_t>(stack.segments)),
             op.labels.given() ? op.labels.data + first : nullptr,
             min_of(images_of_task, images - first),
             0,
             0,
             0};
    for (at.y = 0; at.y < height; ++at.y) {
      begin_row(stack, width, at);
      for (at.x = 0; at.x < width; ++at.x) {
        for (at.colour = 0; at.colour < stack.groups; ++at.colour) {
          for (std::int64_t i = 0; i < stack.count; ++i) {
            if (!stack.maps[i + 1].row_by_row) run_layer(stack, i, at);
          }
          draw_pixel(op, stack, at, first, wrong);
        }
      }
    }
  });
  if (wrong.raised != 0) runtime::reject_parameters(op.name, "params", op.params);
}

}  // namespace

void fill_pixels(runtime::Table& table) {
  table.conv.PixelSample = pixel_sample;
  table.conv.PixelDraw = pixel_draw;
}

}  // namespace gencore::GENCORE_LEVEL
