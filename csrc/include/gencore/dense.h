// Dense linear algebra with fused epilogues.
#pragma once

#include "gencore/op.h"

// Every op of the family. Tables, bindings and run() are generated from this list.
#define GENCORE_DENSE_OPS(X) X(MatMul)

namespace gencore::dense {

enum class Activation : std::int32_t { identity = 0, logistic = 1, tanh = 2, relu = 3, softplus = 4 };

// out = activation(op(a) op(b) + bias), op(x) = x or its transpose. Each element sums k = 0, 1, ... with one
// fused multiply-add a term, so a 0/1 matrix gives the same bits as adding the rows its ones select.
struct MatMul : OpBase {
  static constexpr const char* name = "dense.matmul";
  Matrix<const float> a{}, b{};
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

GENCORE_API void run(const MatMul& op);

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
  if (activation < Activation::identity || activation > Activation::softplus) {
    check::fail(name, "activation", "to be one of 0 .. 4", std::to_string(static_cast<int>(activation)));
  }
}

}  // namespace gencore::dense
