// Convolutions of images (N, H, W, C) with kernels (kh, kw, C_in, C_out), plain and masked. The three ops are linear in
// each of their two arrays, and the derivatives of each are the other two.
#pragma once

#include "gencore/dense.h"
#include "gencore/op.h"

#define GENCORE_CONV_OPS(X) X(Conv2d) X(Conv2dInput) X(Conv2dWeight)

namespace gencore::conv {

// The taps that count. Pixels come in raster order, the kernel's centre is (kh / 2, kw / 2):
//   before / to_here: taps before the centre, without and with the centre itself (types A and B). The channels of an image
//   with channel_groups colours come colour by colour; at the centre, an output of colour g sees inputs of colours below g
//   (A), or of g, too (B);
//   above / to_this_row: rows above the centre's, without and with that row, whole.
enum class Mask : std::int32_t { none = 0, before = 1, to_here = 2, above = 3, to_this_row = 4 };

template <class T>
using Images = View<T, 4>;

// Which pixel meets which: out(y, x) sums in(y stride_h + ky - pad_top, x stride_w + kx - pad_left) over the taps (ky, kx);
// beyond the image lies 0. The size of out says how far it goes.
struct Geometry : OpBase {
  std::int64_t stride_h = 1, stride_w = 1, pad_top = 0, pad_left = 0;
  Mask mask = Mask::none;
  std::int64_t channel_groups = 1;

  template <class Op, class F>
  static void geometry_fields(F&& f) {
    f("stride_h", &Op::stride_h);
    f("stride_w", &Op::stride_w);
    f("pad_top", &Op::pad_top);
    f("pad_left", &Op::pad_left);
    f("mask", &Op::mask);
    f("channel_groups", &Op::channel_groups);
  }
  void check_geometry(const char* op, const Images<const float>& w) const;
  // Of (in, out) along both axes.
  void check_sizes(const char* op, const char* in_name, const std::int64_t* in, const char* out_name,
                   const std::int64_t* out) const;
};

// out = activation(x * w + bias). Each element is one chain of fused multiply-adds from 0: rows of taps in order, in each
// of them columns, in each of them channels; masked taps take no part.
struct Conv2d : Geometry {
  static constexpr const char* name = "conv.conv2d";
  Images<const float> x{};     // (N, H, W, C_in)
  Images<const float> w{};     // (kh, kw, C_in, C_out)
  Vector<const float> bias{};  // (C_out,), optional
  Images<float> out{};         // (N, H', W', C_out)
  dense::Activation activation = dense::Activation::identity;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &Conv2d::x);
    f("w", &Conv2d::w);
    f("bias", &Conv2d::bias);
    f("out", &Conv2d::out);
    f("activation", &Conv2d::activation);
    geometry_fields<Conv2d>(f);
  }
};

// The gradient of <grad, x * w> for x: the transposed convolution. Chains as Conv2d's, backwards; with fewer than 8 input
// channels a chain for each tap, which are then added.
struct Conv2dInput : Geometry {
  static constexpr const char* name = "conv.conv2d_input";
  Images<const float> grad{};  // (N, H', W', C_out)
  Images<const float> w{};     // (kh, kw, C_in, C_out)
  Images<float> out{};         // (N, H, W, C_in)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &Conv2dInput::grad);
    f("w", &Conv2dInput::w);
    f("out", &Conv2dInput::out);
    geometry_fields<Conv2dInput>(f);
  }
};

// The gradient of <grad, x * w> for w, 0 at masked taps. A chain for each image; groups of images are summed apart.
struct Conv2dWeight : Geometry {
  static constexpr const char* name = "conv.conv2d_weight";
  Images<const float> x{};     // (N, H, W, C_in)
  Images<const float> grad{};  // (N, H', W', C_out)
  Images<float> out{};         // (kh, kw, C_in, C_out)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &Conv2dWeight::x);
    f("grad", &Conv2dWeight::grad);
    f("out", &Conv2dWeight::out);
    geometry_fields<Conv2dWeight>(f);
  }
};

GENCORE_API void run(const Conv2d& op);
GENCORE_API void run(const Conv2dInput& op);
GENCORE_API void run(const Conv2dWeight& op);

namespace detail {
// What is multiplied by w or is like it, for the checks.
template <class T>
Images<const float> constant(const Images<T>& w) {
  Images<const float> view;
  view.data = w.data;
  for (int i = 0; i < 4; ++i) view.shape[i] = w.shape[i];
  return view;
}
}  // namespace detail

inline void Geometry::check_geometry(const char* op, const Images<const float>& w) const {
  check::at_least(op, "stride_h", stride_h, 1);
  check::at_least(op, "stride_w", stride_w, 1);
  check::at_least(op, "the rows of w", w.shape[0], 1);
  check::at_least(op, "the columns of w", w.shape[1], 1);
  check::in_range(op, "pad_top", pad_top, 0, w.shape[0] - 1);
  check::in_range(op, "pad_left", pad_left, 0, w.shape[1] - 1);
  if (mask < Mask::none || mask > Mask::to_this_row) {
    check::fail(op, "mask", "to be one of 0 .. 4", std::to_string(static_cast<int>(mask)));
  }
  check::at_least(op, "channel_groups", channel_groups, 1);
  if (channel_groups > 1 && mask != Mask::before && mask != Mask::to_here) {
    check::fail(op, "channel_groups", "to be 1 unless the mask is of type A or B", std::to_string(channel_groups));
  }
  for (int axis = 2; axis < 4; ++axis) {
    if (w.shape[axis] % channel_groups != 0) {
      check::fail(op, axis == 2 ? "the input channels of w" : "the output channels of w",
                  "to be a multiple of channel_groups, " + std::to_string(channel_groups),
                  std::to_string(w.shape[axis]));
    }
  }
}

inline void Geometry::check_sizes(const char* op, const char* in_name, const std::int64_t* in, const char* out_name,
                                  const std::int64_t* out) const {
  const std::int64_t stride[2] = {stride_h, stride_w}, pad[2] = {pad_top, pad_left};
  for (int axis = 0; axis < 2; ++axis) {
    if (out[axis] == 0) continue;
    // The last window begins within the image.
    const std::int64_t last = (out[axis] - 1) * stride[axis] - pad[axis];
    if (last >= in[axis]) {
      check::fail(op, out_name,
                  std::string("to end where windows meet ") + in_name + " (" + std::to_string(in[axis]) +
                      (axis == 0 ? " rows)" : " columns)"),
                  std::to_string(out[axis]) + (axis == 0 ? " rows" : " columns"));
    }
  }
}

inline void Conv2d::check() const {
  check::given(name, "x", x);
  check::given(name, "w", w);
  check::given(name, "out", out);
  check_geometry(name, w);
  check::shape(name, "w", w, {w.shape[0], w.shape[1], x.shape[3], w.shape[3]}, "the channels of x");
  if (bias.given()) check::shape(name, "bias", bias, {w.shape[3]}, "the output channels of w");
  check::shape(name, "out", out, {x.shape[0], out.shape[1], out.shape[2], w.shape[3]},
               "the images of x and the output channels of w");
  check_sizes(name, "x", x.shape + 1, "out", out.shape + 1);
  check::apart(name, "out", out, "x", x);
  check::apart(name, "out", out, "w", w);
  check::apart(name, "out", out, "bias", bias);
  dense::detail::activation(name, activation);
}

inline void Conv2dInput::check() const {
  check::given(name, "grad", grad);
  check::given(name, "w", w);
  check::given(name, "out", out);
  check_geometry(name, w);
  check::shape(name, "w", w, {w.shape[0], w.shape[1], w.shape[2], grad.shape[3]}, "the channels of grad");
  check::shape(name, "out", out, {grad.shape[0], out.shape[1], out.shape[2], w.shape[2]},
               "the images of grad and the input channels of w");
  check_sizes(name, "out", out.shape + 1, "grad", grad.shape + 1);
  check::apart(name, "out", out, "grad", grad);
  check::apart(name, "out", out, "w", w);
}

inline void Conv2dWeight::check() const {
  check::given(name, "x", x);
  check::given(name, "grad", grad);
  check::given(name, "out", out);
  check_geometry(name, detail::constant(out));
  check::shape(name, "grad", grad, {x.shape[0], grad.shape[1], grad.shape[2], grad.shape[3]}, "the images of x");
  check::shape(name, "out", out, {out.shape[0], out.shape[1], x.shape[3], grad.shape[3]},
               "the channels of x and of grad");
  check_sizes(name, "x", x.shape + 1, "grad", grad.shape + 1);
  check::apart(name, "out", out, "x", x);
  check::apart(name, "out", out, "grad", grad);
}

}  // namespace gencore::conv
