// Pixel by pixel: samples of stacks of masked convolutions, each activation computed once.
#pragma once

#include <vector>

#include "gencore/conv.h"
#include "gencore/sample_coordinates.h"

#define GENCORE_PIXELS_OPS(X) X(PixelSample) X(PixelDraw) X(StackForward) X(StackVjp) X(StackLogProbVjp)

namespace gencore::conv {

// What a layer of a stack does to feature maps. Map 0 is the image, level / (levels - 1).
//   convolve: dst = activation(src * w + bias), masked; unmasked kernels are (1, 1)
//   add:      dst = src + src2
//   relu:     dst = max(src, 0)
//   gate:     dst = tanh(first half of src) logistic(second half), each colour's features halved by themselves
enum class Layer : std::int32_t { convolve = 0, add = 1, relu = 2, gate = 3 };

// Columns of a row of `layers`.
enum LayerField : std::int32_t {
  layer_kind,
  layer_src,
  layer_src2,
  layer_dst,
  layer_kh,
  layer_kw,
  layer_c_in,
  layer_c_out,
  layer_mask,
  layer_activation,
  layer_weight,
  layer_bias,
  layer_fields
};

// A stack, and what all that run it take.
struct Stack {
  HostMatrix<const std::int64_t> layers{};  // (layers, layer_fields), on the host whatever the device
  VectorList<const float> params{};         // weights and biases, flat; layers refer to them by number
  std::int64_t channel_groups = 1;          // of every layer: 1 or the colours
  std::int64_t n_classes = 0;               // 0, or that of the labels
  Vector<const std::int64_t> labels{};      // (N,), optional: a bias of n_classes rows has one for each class
};
template <class T, class F>
void stack_fields(F&& f) {
  f("layers", &T::layers);
  f("params", &T::params);
  f("channel_groups", &T::channel_groups);
  f("n_classes", &T::n_classes);
  f("labels", &T::labels);
}

namespace detail {
inline void one_of(const char* op, const std::string& what, std::int64_t value, std::int64_t least, std::int64_t most) {
  check::in_range(op, what.c_str(), value, least, most);
}
// Numbers that the last map holds for a colour of a pixel.
inline std::int64_t logits_of(std::int64_t levels, std::int64_t n_mixtures) {
  return n_mixtures > 0 ? 3 * n_mixtures : levels == 2 ? 1 : levels;
}
inline std::string layer_named(std::int64_t i, const char* field) {
  return "layers[" + std::to_string(i) + "]'s " + field;
}
}  // namespace detail

// Whether a layer's map is complete before the first pixel of a row is drawn, where its source (of a sum both) is or not.
GENCORE_INLINE bool comes_row_by_row(Layer kind, Mask mask, std::int64_t kh, std::int64_t kw, bool source) {
  if (kind != Layer::convolve) return source;
  if (mask == Mask::above) return true;
  return source && (mask == Mask::to_this_row || (mask != Mask::before && kh == 1 && kw == 1));
}

// Whether the layers fit each other and what they read. Labels are looked at where they are `readable`; on a device, what
// one beyond the classes adds is NaN.
inline void check_stack(const char* name, const Stack& stack, bool readable, std::int64_t images,
                        std::int64_t colours) {
  const auto& [layers, params, channel_groups, n_classes, labels] = stack;
  check::given(name, "layers", layers);
  check::given(name, "params", params);
  check::at_least(name, "channel_groups", channel_groups, 1);
  check::at_least(name, "n_classes", n_classes, 0);
  if (n_classes == 0 && labels.given()) check::fail(name, "n_classes", "to be at least 1 with labels", "0");
  if (n_classes > 0) {
    check::shape(name, "labels", labels, {images}, "the images");
    for (std::int64_t n = 0; readable && n < images; ++n) {
      detail::one_of(name, "labels[" + std::to_string(n) + "]", labels[n], 0, n_classes - 1);
    }
  }
  check::shape(name, "layers", layers, {layers.shape[0], std::int64_t{layer_fields}}, "the fields of a layer");
  check::at_least(name, "the rows of layers", layers.shape[0], 1);
  for (std::int64_t i = 0; i < layers.shape[0]; ++i) {
    const std::int64_t* l = layers.row(i);
    const auto named = [i](const char* field) { return detail::layer_named(i, field); };
    detail::one_of(name, named("kind"), l[layer_kind], 0, 3);
    detail::one_of(name, named("src"), l[layer_src], 0, i);
    detail::one_of(name, named("dst"), l[layer_dst], i + 1, i + 1);  // maps are numbered by the layers that make them
    // A map's channels are those that its layer puts out.
    const auto channels = [&of = stack.layers, colours](std::int64_t map) {
      return map == 0 ? colours : of.row(map - 1)[layer_c_out];
    };
    const std::int64_t c_in = channels(l[layer_src]);
    detail::one_of(name, named("c_in"), l[layer_c_in], c_in, c_in);
    detail::one_of(name, named("c_out"), l[layer_c_out], 1, std::int64_t{1} << 20);
    if (l[layer_c_out] % channel_groups != 0 || c_in % channel_groups != 0) {
      check::fail(name, named("channels").c_str(), "to be a multiple of channel_groups",
                  std::to_string(l[layer_c_out]));
    }
    if (l[layer_kind] == static_cast<std::int64_t>(Layer::convolve)) {
      detail::one_of(name, named("mask"), l[layer_mask], 0, 4);
      detail::one_of(name, named("kh"), l[layer_kh], 1, l[layer_mask] == 0 ? 1 : 1024);
      detail::one_of(name, named("kw"), l[layer_kw], 1, l[layer_mask] == 0 ? 1 : 1024);
      dense::detail::activation(name, static_cast<dense::Activation>(l[layer_activation]));
      detail::one_of(name, named("weight"), l[layer_weight], 0, params.count - 1);
      detail::one_of(name, named("bias"), l[layer_bias], -1, params.count - 1);
      const std::int64_t size = l[layer_kh] * l[layer_kw] * c_in * l[layer_c_out];
      detail::one_of(name, named("size of the weight"), params[l[layer_weight]].size(), size, size);
      if (l[layer_bias] >= 0) {
        const std::int64_t found = params[l[layer_bias]].size();
        if (n_classes == 0 || found != n_classes * l[layer_c_out]) {
          detail::one_of(name, named("size of the bias"), found, l[layer_c_out], l[layer_c_out]);
        }
      }
    } else if (l[layer_kind] == static_cast<std::int64_t>(Layer::gate)) {
      detail::one_of(name, named("c_in"), c_in, 2 * l[layer_c_out], 2 * l[layer_c_out]);
    } else {
      detail::one_of(name, named("c_out"), l[layer_c_out], c_in, c_in);
      if (l[layer_kind] == static_cast<std::int64_t>(Layer::add)) {
        detail::one_of(name, named("src2"), l[layer_src2], 0, i);
        detail::one_of(name, named("channels of src2"), channels(l[layer_src2]), c_in, c_in);
      }
    }
  }
}

// Whether no layer of a stack sees what is drawn with its pixel or later: the image is read by strict masks alone, and
// whole rows of what is not complete when a row begins by none.
inline void check_causal(const char* name, const Stack& stack) {
  const auto& layers = stack.layers;
  std::vector<bool> by_row(static_cast<std::size_t>(layers.shape[0] + 1));
  const auto map = [&](std::int64_t m) { return static_cast<std::size_t>(m); };
  for (std::int64_t i = 0; i < layers.shape[0]; ++i) {
    const std::int64_t* l = layers.row(i);
    const auto kind = static_cast<Layer>(l[layer_kind]);
    const std::int64_t src = l[layer_src], src2 = kind == Layer::add ? l[layer_src2] : src;
    const auto mask = static_cast<Mask>(l[layer_mask]);
    const bool rows = by_row[map(src)] && by_row[map(src2)];
    by_row[map(i + 1)] = comes_row_by_row(kind, mask, l[layer_kh], l[layer_kw], rows);
    if (kind != Layer::convolve) {
      if (src != 0 && src2 != 0) continue;
      check::fail(name, detail::layer_named(i, "src").c_str(), "to be a map that hides what is not drawn yet", "0");
    }
    const bool strict = mask == Mask::before || mask == Mask::above, grouped = stack.channel_groups > 1;
    const bool ahead = mask == Mask::to_this_row && !rows && (l[layer_kw] > 2 || grouped);
    if ((src == 0 && !strict) || (mask == Mask::none && grouped) || ahead) {
      check::fail(name, detail::layer_named(i, "mask").c_str(), "to hide what is not drawn yet",
                  std::to_string(l[layer_mask]));
    }
  }
}

// Draws images in raster order, colour after colour. The last layer's map holds the logits: one for each colour
// (levels = 2: P(1) = logistic), or `levels` for each, colour by colour. They are divided by the temperature.
//
// The draw of pixel p = y W + x, colour c of image n has the uniform of row first_row + n, unit p C + c, domain
// pixel_head (and pixel_tail). Activations have the bits of the convolutions of conv.h, so images those of drawing each
// pixel after a forward pass over the whole image.
struct PixelSample : sample::Coordinates, Stack {
  static constexpr const char* name = "conv.pixel_sample";
  std::int64_t levels = 2;
  std::int64_t n_mixtures = 0;  // where not 0, the last map holds parameters as those of dense.logistic_mixture
  float temperature = 1;
  View<const std::uint8_t, 4> given{};  // (N, H, W, C), optional
  View<const std::uint8_t, 4> keep{};   // (N, H, W, C) or (1, H, W, C), 1 where `given` stays; with given
  View<std::uint8_t, 4> out{};          // (N, H, W, C)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    stack_fields<PixelSample>(f);
    f("levels", &PixelSample::levels);
    f("n_mixtures", &PixelSample::n_mixtures);
    f("temperature", &PixelSample::temperature);
    f("given", &PixelSample::given);
    f("keep", &PixelSample::keep);
    f("out", &PixelSample::out);
    coordinate_fields<PixelSample>(f);
  }
};

// The same draw for one unit of every row: logits (N, 1) of a bit, (N, levels), or the (N, 3 n_mixtures) of a mixture.
struct PixelDraw : sample::Coordinates {
  static constexpr const char* name = "conv.pixel_draw";
  Matrix<const float> logits{};
  std::int64_t n_mixtures = 0;
  std::int64_t levels = 256;  // of a mixture
  std::int64_t unit = 0;
  float temperature = 1;
  Vector<std::uint8_t> out{};  // (N,)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("logits", &PixelDraw::logits);
    f("levels", &PixelDraw::levels);
    f("n_mixtures", &PixelDraw::n_mixtures);
    f("unit", &PixelDraw::unit);
    f("temperature", &PixelDraw::temperature);
    f("out", &PixelDraw::out);
    coordinate_fields<PixelDraw>(f);
  }
};

// The whole stack on images: out is the last layer's map. Image by image, so that no map is ever in memory; the bits are
// those of the layers one after the other.
struct StackForward : OpBase, Stack {
  static constexpr const char* name = "conv.stack_forward";
  Images<const float> x{};  // (N, H, W, C)
  bool causal = false;      // whether to refuse a stack that sees what PixelSample draws later
  Images<float> out{};      // (N, H, W, K)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    stack_fields<StackForward>(f);
    f("x", &StackForward::x);
    f("causal", &StackForward::causal);
    f("out", &StackForward::out);
  }
};

// Gradients of <grad, out> for the parameters; maps are computed again, image by image. Sums over pixels are float32, an
// image at a time; groups of images are added in float64.
struct StackVjp : OpBase, Stack {
  static constexpr const char* name = "conv.stack_vjp";
  Images<const float> x{};     // (N, H, W, C)
  Images<const float> grad{};  // (N, H, W, K)
  VectorList<float> grads{};   // like params

  void check() const;
  template <class F>
  static void fields(F&& f) {
    stack_fields<StackVjp>(f);
    f("x", &StackVjp::x);
    f("grad", &StackVjp::grad);
    f("grads", &StackVjp::grads);
  }
};

// out[n] = log P(images[n]) where the last layer's map holds what PixelSample draws by, and grads, the gradients of
// <grad, out> for the parameters, all in one pass over each image. Map 0 is level / (levels - 1).
struct StackLogProbVjp : OpBase, Stack {
  static constexpr const char* name = "conv.stack_log_prob_vjp";
  std::int64_t levels = 2;
  std::int64_t n_mixtures = 0;
  View<const std::uint8_t, 4> images{};  // (N, H, W, C), below levels
  Vector<const float> grad{};            // (N,)
  Vector<float> out{};                   // (N,)
  VectorList<float> grads{};             // like params

  void check() const;
  template <class F>
  static void fields(F&& f) {
    stack_fields<StackLogProbVjp>(f);
    f("levels", &StackLogProbVjp::levels);
    f("n_mixtures", &StackLogProbVjp::n_mixtures);
    f("images", &StackLogProbVjp::images);
    f("grad", &StackLogProbVjp::grad);
    f("out", &StackLogProbVjp::out);
    f("grads", &StackLogProbVjp::grads);
  }
};

GENCORE_API void run(const PixelSample& op);
GENCORE_API void run(const PixelDraw& op);
GENCORE_API void run(const StackForward& op);
GENCORE_API void run(const StackVjp& op);
GENCORE_API void run(const StackLogProbVjp& op);

inline void PixelSample::check() const {
  check::given(name, "out", out);
  check::in_range(name, "levels", levels, 2, 256);
  check::in_range(name, "n_mixtures", n_mixtures, 0, 256);
  check::positive(name, "temperature", static_cast<double>(temperature));
  const std::int64_t colours = out.shape[3];
  if (channel_groups != 1 && channel_groups != colours) {
    check::fail(name, "channel_groups", "to be 1 or the colours of out", std::to_string(channel_groups));
  }
  if (given.given()) {
    check::shape(name, "given", given, {out.shape[0], out.shape[1], out.shape[2], colours}, "the shape of out");
    check::given(name, "keep, which goes with given,", keep);
    check::shape(name, "keep", keep, {keep.shape[0] == 1 ? 1 : out.shape[0], out.shape[1], out.shape[2], colours},
                 "the shape of out, or of one of its images");
    check::apart(name, "out", out, "given", given);
    check::apart(name, "out", out, "keep", keep);
  } else if (keep.given()) {
    check::fail(name, "given, which keep refers to,", "to be given", "nothing");
  }
  check_stack(name, *this, readable(), out.shape[0], colours);
  check_causal(name, *this);
  const std::int64_t logits = layers.row(layers.shape[0] - 1)[layer_c_out],
                     wanted = colours * detail::logits_of(levels, n_mixtures);
  if (logits != wanted) {
    check::fail(name, "the last of layers, with these levels,", "to put out " + std::to_string(wanted) + " channels",
                std::to_string(logits));
  }
  for (std::int64_t i = 0; readable() && given.given() && i < given.size(); ++i) {
    if (given[i] < levels || keep[i % keep.size()] == 0) continue;
    check::fail(name, "given", "to hold levels from 0 to " + std::to_string(levels - 1) + " where keep is 1",
                std::to_string(given[i]));
  }
  check_coordinates(name, out.shape[0]);
}

inline void StackForward::check() const {
  check::given(name, "x", x);
  check_stack(name, *this, readable(), x.shape[0], x.shape[3]);
  if (causal) check_causal(name, *this);
  check::shape(name, "out", out, {x.shape[0], x.shape[1], x.shape[2], layers.row(layers.shape[0] - 1)[layer_c_out]},
               "the images of x and the channels of the last layer");
  check::apart(name, "out", out, "x", x);
}

inline void StackVjp::check() const {
  check::given(name, "x", x);
  check_stack(name, *this, readable(), x.shape[0], x.shape[3]);
  check::shape(name, "grad", grad, {x.shape[0], x.shape[1], x.shape[2], layers.row(layers.shape[0] - 1)[layer_c_out]},
               "the images of x and the channels of the last layer");
  check::like(name, "grads", grads, "params", params);
}

inline void StackLogProbVjp::check() const {
  check::given(name, "images", images);
  check::in_range(name, "levels", levels, 2, 256);
  check::in_range(name, "n_mixtures", n_mixtures, 0, 256);
  check_stack(name, *this, readable(), images.shape[0], images.shape[3]);
  check_causal(name, *this);
  const std::int64_t logits = layers.row(layers.shape[0] - 1)[layer_c_out],
                     wanted = images.shape[3] * detail::logits_of(levels, n_mixtures);
  check::in_range(name, "levels and n_mixtures, and so the channels of the last of layers,", logits, wanted, wanted);
  for (std::int64_t i = 0; readable() && i < images.size(); ++i) {
    if (images[i] < levels) continue;
    check::fail(name, "images", "to hold levels from 0 to " + std::to_string(levels - 1), std::to_string(images[i]));
  }
  check::shape(name, "grad", grad, {images.shape[0]}, "the images");
  check::shape(name, "out", out, {images.shape[0]}, "the images");
  check::like(name, "grads", grads, "params", params);
}

inline void PixelDraw::check() const {
  check::given(name, "logits", logits);
  check::in_range(name, "levels", levels, 2, 256);
  check::in_range(name, "n_mixtures", n_mixtures, 0, 256);
  if (n_mixtures == 0) {
    check::in_range(name, "the columns of logits", logits.shape[1], 1, 256);
  } else {
    check::in_range(name, "the columns of logits, with these n_mixtures,", logits.shape[1], 3 * n_mixtures,
                    3 * n_mixtures);
  }
  check::shape(name, "out", out, {logits.shape[0]}, "the rows of logits");
  check::in_range(name, "unit", unit, 0, (std::int64_t{1} << 31) - 1);
  check::positive(name, "temperature", static_cast<double>(temperature));
  check_coordinates(name, logits.shape[0]);
}

}  // namespace gencore::conv
