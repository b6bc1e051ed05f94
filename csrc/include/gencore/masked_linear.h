// A layer whose unit j sees input i where out_degree[j] >= in_degree[i], or where it is greater if `strict` (MADE, Germain
// et al. 2015). x is (m, k), w (k, n); M is that mask. What w holds where it is masked is never read. Degrees are any
// integers, in any order.
//
// Extra memory of each op: 16 bytes for each degree; where degrees do not ascend, copies of the operands and of the result
// in the order in which they do; with bytes, x as bits and the other operand packed.
#pragma once

#include "gencore/dense.h"

#define GENCORE_MASKED_LINEAR_OPS(X) X(MaskedLinear) X(MaskedLinearInput) X(MaskedLinearWeight)

namespace gencore::autoregressive {

struct Degrees {
  Vector<const std::int64_t> in_degree{}, out_degree{};  // (k,), (n,)
  bool strict = false;

  template <class Op, class F>
  static void degree_fields(F&& f) {
    f("in_degree", &Op::in_degree);
    f("out_degree", &Op::out_degree);
    f("strict", &Op::strict);
  }
};

// out = activation(x (w * M) + bias). Each element is one chain of fused multiply-adds over its inputs by ascending degree.
struct MaskedLinear : OpBase, Degrees {
  static constexpr const char* name = "autoregressive.masked_linear";
  ConstStates x{};  // bytes of 0 and 1 select and add rows of w; float32 may be real
  Matrix<const float> w{};
  Vector<const float> bias{};  // (n,), optional
  Matrix<float> out{};         // (m, n)
  dense::Activation activation = dense::Activation::identity;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &MaskedLinear::x);
    f("w", &MaskedLinear::w);
    f("bias", &MaskedLinear::bias);
    degree_fields<MaskedLinear>(f);
    f("out", &MaskedLinear::out);
    f("activation", &MaskedLinear::activation);
  }
};

// out = grad (w * M)'.
struct MaskedLinearInput : OpBase, Degrees {
  static constexpr const char* name = "autoregressive.masked_linear_input";
  Matrix<const float> grad{}, w{};  // (m, n), (k, n)
  Matrix<float> out{};              // (m, k)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &MaskedLinearInput::grad);
    f("w", &MaskedLinearInput::w);
    degree_fields<MaskedLinearInput>(f);
    f("out", &MaskedLinearInput::out);
  }
};

// out = (x' grad) * M: 0 where it is masked, whatever x and grad hold.
struct MaskedLinearWeight : OpBase, Degrees {
  static constexpr const char* name = "autoregressive.masked_linear_weight";
  ConstStates x{};             // (m, k)
  Matrix<const float> grad{};  // (m, n)
  Matrix<float> out{};         // (k, n)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &MaskedLinearWeight::x);
    f("grad", &MaskedLinearWeight::grad);
    degree_fields<MaskedLinearWeight>(f);
    f("out", &MaskedLinearWeight::out);
  }
};

GENCORE_API void run(const MaskedLinear& op);
GENCORE_API void run(const MaskedLinearInput& op);
GENCORE_API void run(const MaskedLinearWeight& op);

inline void MaskedLinear::check() const {
  check::given(name, "x", x);
  check::given(name, "w", w);
  check::shape(name, "w", w, {x.shape[1], w.shape[1]}, "as many rows as x has columns");
  check::shape(name, "in_degree", in_degree, {w.shape[0]}, "the rows of w");
  check::shape(name, "out_degree", out_degree, {w.shape[1]}, "the columns of w");
  if (bias.given()) check::shape(name, "bias", bias, {w.shape[1]}, "the columns of w");
  check::shape(name, "out", out, {x.shape[0], w.shape[1]}, "the rows of x and the columns of w");
  check::apart(name, "out", out, "x", x);
  check::apart(name, "out", out, "w", w);
  if (bias.given()) check::apart(name, "out", out, "bias", bias);
  dense::detail::activation(name, activation);
}

inline void MaskedLinearInput::check() const {
  check::given(name, "grad", grad);
  check::given(name, "w", w);
  check::shape(name, "w", w, {w.shape[0], grad.shape[1]}, "the columns of grad");
  check::shape(name, "in_degree", in_degree, {w.shape[0]}, "the rows of w");
  check::shape(name, "out_degree", out_degree, {w.shape[1]}, "the columns of w");
  check::shape(name, "out", out, {grad.shape[0], w.shape[0]}, "the rows of grad and of w");
  check::apart(name, "out", out, "grad", grad);
  check::apart(name, "out", out, "w", w);
}

inline void MaskedLinearWeight::check() const {
  check::given(name, "x", x);
  check::given(name, "grad", grad);
  check::shape(name, "grad", grad, {x.shape[0], grad.shape[1]}, "the rows of x");
  check::shape(name, "in_degree", in_degree, {x.shape[1]}, "the columns of x");
  check::shape(name, "out_degree", out_degree, {grad.shape[1]}, "the columns of grad");
  check::shape(name, "out", out, {x.shape[1], grad.shape[1]}, "the columns of x and of grad");
  check::apart(name, "out", out, "x", x);
  check::apart(name, "out", out, "grad", grad);
}

}  // namespace gencore::autoregressive
