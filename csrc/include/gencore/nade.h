// The neural autoregressive distribution estimator on binary x (Larochelle & Murray 2011): with a = c at first, for each
// dimension d in order
//   h = logistic(a), logit_d = b_d + v_d . h, p(x_d = 1 | before) = logistic(logit_d), a += x_d w_d.
//
// x is (N, D), w and v (D, H), c (H,), b (D,). order, a permutation of 0 .. D - 1, says which dimension comes first,
// second, ...; without it they come as they lie. w, v and b are indexed by dimension in any order.
#pragma once

#include "gencore/sample_coordinates.h"

#define GENCORE_NADE_OPS(X) X(NadeLogProb) X(NadeLogProbVjp) X(NadeSample)

namespace gencore::autoregressive {

struct NadeParameters {
  Matrix<const float> w{};
  Vector<const float> c{};
  Matrix<const float> v{};
  Vector<const float> b{};
  Vector<const std::int64_t> order{};  // optional

  template <class Op, class F>
  static void parameter_fields(F&& f) {
    f("w", &Op::w);
    f("c", &Op::c);
    f("v", &Op::v);
    f("b", &Op::b);
    f("order", &Op::order);
  }
  void check_parameters(const char* op) const;
};

// out[n] = log p(x[n]); logits[n, d] = logit_d, if asked for. Sums over dimensions are float64. Work: N D H multiply-adds,
// and H logistic functions for each one in x. Extra memory: 64 H + 65 D bytes a thread.
struct NadeLogProb : OpBase, NadeParameters {
  static constexpr const char* name = "autoregressive.nade_log_prob";
  ConstStates x{};         // (N, D)
  Vector<float> out{};     // (N,)
  Matrix<float> logits{};  // (N, D), optional

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &NadeLogProb::x);
    parameter_fields<NadeLogProb>(f);
    f("out", &NadeLogProb::out);
    f("logits", &NadeLogProb::logits);
  }
};

// Gradients of sum_n grad[n] log p(x[n]), summed over rows in float32. Given the logits of NadeLogProb the conditionals
// are not computed again. Extra memory: 5 N D bytes, and a thread's 1 KB for each dimension and 256 bytes for each one
// among 8 rows of x, whatever H.
struct NadeLogProbVjp : OpBase, NadeParameters {
  static constexpr const char* name = "autoregressive.nade_log_prob_vjp";
  Vector<const float> grad{};    // (N,)
  ConstStates x{};               // (N, D)
  Matrix<const float> logits{};  // (N, D), optional
  Matrix<float> grad_w{};        // (D, H)
  Vector<float> grad_c{};        // (H,)
  Matrix<float> grad_v{};        // (D, H)
  Vector<float> grad_b{};        // (D,)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &NadeLogProbVjp::grad);
    f("x", &NadeLogProbVjp::x);
    parameter_fields<NadeLogProbVjp>(f);
    f("logits", &NadeLogProbVjp::logits);
    f("grad_w", &NadeLogProbVjp::grad_w);
    f("grad_c", &NadeLogProbVjp::grad_c);
    f("grad_v", &NadeLogProbVjp::grad_v);
    f("grad_b", &NadeLogProbVjp::grad_b);
  }
};

// Draws x dimension after dimension, x_d = 1 with probability logistic(logit_d / temperature), resolved to 2^-32. Where
// mask is 1, x_d is given_d instead. Parameters may not make NaN of a logit. Extra memory: 64 H + 66 D bytes a thread.
struct NadeSample : sample::Coordinates, NadeParameters {
  static constexpr const char* name = "autoregressive.nade_sample";
  Matrix<std::uint8_t> out{};         // (n, D)
  ConstStates given{};                // (1, D) or (n, D), with mask
  Matrix<const std::uint8_t> mask{};  // (1, D) or (n, D), with given
  float temperature = 1;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<NadeSample>(f);
    f("out", &NadeSample::out);
    f("given", &NadeSample::given);
    f("mask", &NadeSample::mask);
    f("temperature", &NadeSample::temperature);
    coordinate_fields<NadeSample>(f);
  }
};

GENCORE_API void run(const NadeLogProb& op);
GENCORE_API void run(const NadeLogProbVjp& op);
GENCORE_API void run(const NadeSample& op);

inline void NadeParameters::check_parameters(const char* op) const {
  check::given(op, "w", w);
  check::shape(op, "c", c, {w.shape[1]}, "the columns of w");
  check::shape(op, "v", v, {w.shape[0], w.shape[1]}, "the shape of w");
  check::shape(op, "b", b, {w.shape[0]}, "the rows of w");
  if (order.given()) check::shape(op, "order", order, {w.shape[0]}, "the rows of w");
}

namespace detail {
inline void states(const char* op, const ConstStates& x, const Matrix<const float>& w) {
  check::given(op, "x", x);
  check::shape(op, "x", x, {x.shape[0], w.shape[0]}, "the rows of w");
}
template <class Op, class Out>
void apart_from_inputs(const Op& op, const char* name, const Out& out) {
  check::apart(Op::name, name, out, "x", op.x);
  check::apart(Op::name, name, out, "w", op.w);
  check::apart(Op::name, name, out, "c", op.c);
  check::apart(Op::name, name, out, "v", op.v);
  check::apart(Op::name, name, out, "b", op.b);
}
// One row for all of out's, or one for each.
template <class V>
void rows_like(const char* op, const char* arg, const V& view, const Matrix<std::uint8_t>& out) {
  const std::int64_t n = view.shape[0] == 1 ? 1 : out.shape[0];
  check::shape(op, arg, view, {n, out.shape[1]}, "one row, or one for each row of out");
}
}  // namespace detail

inline void NadeLogProb::check() const {
  check_parameters(name);
  detail::states(name, x, w);
  check::shape(name, "out", out, {x.shape[0]}, "the rows of x");
  detail::apart_from_inputs(*this, "out", out);
  if (!logits.given()) return;
  check::shape(name, "logits", logits, {x.shape[0], x.shape[1]}, "the shape of x");
  detail::apart_from_inputs(*this, "logits", logits);
}

inline void NadeLogProbVjp::check() const {
  check_parameters(name);
  detail::states(name, x, w);
  check::shape(name, "grad", grad, {x.shape[0]}, "the rows of x");
  if (logits.given()) check::shape(name, "logits", logits, {x.shape[0], x.shape[1]}, "the shape of x");
  check::shape(name, "grad_w", grad_w, {w.shape[0], w.shape[1]}, "the shape of w");
  check::shape(name, "grad_c", grad_c, {w.shape[1]}, "the shape of c");
  check::shape(name, "grad_v", grad_v, {w.shape[0], w.shape[1]}, "the shape of v");
  check::shape(name, "grad_b", grad_b, {w.shape[0]}, "the shape of b");
  detail::apart_from_inputs(*this, "grad_w", grad_w);
  detail::apart_from_inputs(*this, "grad_c", grad_c);
  detail::apart_from_inputs(*this, "grad_v", grad_v);
  detail::apart_from_inputs(*this, "grad_b", grad_b);
}

inline void NadeSample::check() const {
  check_parameters(name);
  check::given(name, "out", out);
  check::shape(name, "out", out, {out.shape[0], w.shape[0]}, "the rows of w");
  if (mask.given() || given.given()) {
    check::given(name, "mask", mask);
    check::given(name, "given", given);
    detail::rows_like(name, "mask", mask, out);
    detail::rows_like(name, "given", given, out);
    check::apart(name, "out", out, "given", given);
    check::apart(name, "out", out, "mask", mask);
  }
  check::positive(name, "temperature", static_cast<double>(temperature));
  check_coordinates(name, out.shape[0]);
}

}  // namespace gencore::autoregressive
