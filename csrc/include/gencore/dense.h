// Dense linear algebra with fused epilogues.
#pragma once

#include "gencore/dense_loss.h"
#include "gencore/logistic_mixture.h"
#include "gencore/op.h"

// Every op of the family. Tables, bindings and run() are generated from this list.
#define GENCORE_DENSE_OPS(X) X(MatMul) X(LinearVjp) GENCORE_DENSE_LOSS_OPS(X) GENCORE_LOGISTIC_MIXTURE_OPS(X)

namespace gencore::dense {

enum class Activation : std::int32_t { identity = 0, logistic = 1, tanh = 2, relu = 3, softplus = 4 };

// out = activation(op(a) op(b) + bias), op(x) = x or its transpose. Each element sums k = 0, 1, ... with one
// fused multiply-add a term, so a 0/1 matrix gives the same bits as adding the rows its ones select.
struct MatMul : OpBase {
  static constexpr const char* name = "dense.matmul";
  ConstStates a{};  // bytes of 0 and 1 select and add rows of b; float32 may be real
  Matrix<const float> b{};
  Vector<const float> bias{};  // (n,), optional
  Matrix<float> out{};         // (m, n)
  bool transpose_a = false, transpose_b = false;
  Activation activation = Activation::identity;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("a", &MatMul::a);
    f("b", &MatMul::b);
    f("bias", &MatMul::bias);
    f("out", &MatMul::out);
    f("transpose_a", &MatMul::transpose_a);
    f("transpose_b", &MatMul::transpose_b);
    f("activation", &MatMul::activation);
  }
};

// Gradients of y = activation(x w + bias), given grad, that of y: with dz = grad * activation'(x w + bias), made once,
//   grad_x = dz w',  grad_w = x' dz,  grad_bias = column sums of dz,  grad_z = dz.
// The derivative comes from y: y (1 - y), 1 - y^2, [y > 0], 1 - e^-y. Each output is optional; x is read for grad_w only,
// w for grad_x only, y for every activation but the identity. The products are sums as MatMul's. grad_bias is summed in
// float32 over stretches of 32 rows, whose sums are added in float64. Extra memory: dz, unless the activation is the
// identity, and the sums of the stretches.
struct LinearVjp : OpBase {
  static constexpr const char* name = "dense.linear_vjp";
  Matrix<const float> grad{};        // (m, n)
  ConstStates x{};                   // (m, k); bytes of 0 and 1, or float32, which may be real
  Matrix<const float> w{}, y{};      // (k, n), (m, n)
  Matrix<float> grad_x{}, grad_w{};  // (m, k), (k, n)
  Vector<float> grad_bias{};         // (n,)
  Matrix<float> grad_z{};            // (m, n)
  Activation activation = Activation::identity;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &LinearVjp::grad);
    f("x", &LinearVjp::x);
    f("w", &LinearVjp::w);
    f("y", &LinearVjp::y);
    f("grad_x", &LinearVjp::grad_x);
    f("grad_w", &LinearVjp::grad_w);
    f("grad_bias", &LinearVjp::grad_bias);
    f("grad_z", &LinearVjp::grad_z);
    f("activation", &LinearVjp::activation);
  }
};

GENCORE_API void run(const MatMul& op);
GENCORE_API void run(const LinearVjp& op);

namespace detail {
inline void activation(const char* op, Activation a) {
  if (a < Activation::identity || a > Activation::softplus) {
    check::fail(op, "activation", "to be one of 0 .. 4", std::to_string(static_cast<int>(a)));
  }
}
}  // namespace detail

inline void MatMul::check() const {
  check::given(name, "a", a);
  check::given(name, "b", b);
  const std::int64_t m = a.shape[transpose_a ? 1 : 0], k = a.shape[transpose_a ? 0 : 1];
  const std::int64_t n = b.shape[transpose_b ? 0 : 1];
  if (transpose_b) {
    check::shape(name, "b", b, {n, k}, "k columns (transpose_b) as op(a) has");
  } else {
    check::shape(name, "b", b, {k, n}, "as many rows as op(a) has columns");
  }
  if (bias.given()) check::shape(name, "bias", bias, {n}, "the columns of op(b)");
  check::shape(name, "out", out, {m, n}, "the rows of op(a) and the columns of op(b)");
  check::apart(name, "out", out, "a", a);
  check::apart(name, "out", out, "b", b);
  if (bias.given()) check::apart(name, "out", out, "bias", bias);
  detail::activation(name, activation);
}

inline void LinearVjp::check() const {
  check::given(name, "grad", grad);
  detail::activation(name, activation);
  const std::int64_t m = grad.shape[0], n = grad.shape[1];
  if (activation != Activation::identity || y.given()) check::shape(name, "y", y, {m, n}, "the shape of grad");
  if (grad_w.given()) check::given(name, "x, which grad_w needs,", x);
  if (grad_x.given()) check::given(name, "w, which grad_x needs,", w);
  if (x.given()) check::shape(name, "x", x, {m, x.shape[1]}, "the rows of grad");
  if (w.given()) {
    check::shape(name, "w", w, {x.given() ? x.shape[1] : w.shape[0], n}, "the columns of x and of grad");
  }
  if (grad_x.given()) check::shape(name, "grad_x", grad_x, {m, w.shape[0]}, "the rows of grad and of w");
  if (grad_w.given()) check::shape(name, "grad_w", grad_w, {x.shape[1], n}, "the columns of x and of grad");
  if (grad_bias.given()) check::shape(name, "grad_bias", grad_bias, {n}, "the columns of grad");
  if (grad_z.given()) check::shape(name, "grad_z", grad_z, {m, n}, "the shape of grad");
  const auto keep_apart = [this](const char* out_name, const auto& out) {
    check::apart(name, out_name, out, "grad", grad);
    check::apart(name, out_name, out, "x", x);
    check::apart(name, out_name, out, "w", w);
    check::apart(name, out_name, out, "y", y);
  };
  keep_apart("grad_x", grad_x);
  keep_apart("grad_w", grad_w);
  keep_apart("grad_bias", grad_bias);
  keep_apart("grad_z", grad_z);
  check::apart(name, "grad_x", grad_x, "grad_w", grad_w);
  check::apart(name, "grad_x", grad_x, "grad_bias", grad_bias);
  check::apart(name, "grad_w", grad_w, "grad_bias", grad_bias);
  check::apart(name, "grad_z", grad_z, "grad_x", grad_x);
  check::apart(name, "grad_z", grad_z, "grad_w", grad_w);
  check::apart(name, "grad_z", grad_z, "grad_bias", grad_bias);
}

}  // namespace gencore::dense
