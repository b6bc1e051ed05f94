// Levels under a mixture of logistics: the discretised-logistic output of image models, and its gradient.
#pragma once

#include "gencore/op.h"

#define GENCORE_LOGISTIC_MIXTURE_OPS(X) X(LogisticMixtureLogProb) X(LogisticMixtureLogProbVjp)

namespace gencore::dense {

// out[r] = sum_d log P(x[r, d]), where level l stands at y = 2 l / (levels - 1) - 1 and a mixture of K logistics with
// weights softmax(logits) puts the mass between y - 1 / (levels - 1) and y + 1 / (levels - 1) on it, what lies beyond the
// outermost bins included. Row r of params holds for each unit K logits, K means, K log-scales, which count as -7 below
// it. float64 sums over units.
struct LogisticMixtureLogProb : OpBase {
  static constexpr const char* name = "dense.logistic_mixture_log_prob";
  Matrix<const float> params{};    // (N, D 3 K)
  Matrix<const std::uint8_t> x{};  // (N, D), below levels
  std::int64_t levels = 256;       // 2 to 256
  std::int64_t n_mixtures = 1;     // K, 1 to 256
  Vector<float> out{};             // (N,)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("params", &LogisticMixtureLogProb::params);
    f("x", &LogisticMixtureLogProb::x);
    f("levels", &LogisticMixtureLogProb::levels);
    f("n_mixtures", &LogisticMixtureLogProb::n_mixtures);
    f("out", &LogisticMixtureLogProb::out);
  }
};

// grad_params[r] = grad[r] d out[r] / d params[r].
struct LogisticMixtureLogProbVjp : OpBase {
  static constexpr const char* name = "dense.logistic_mixture_log_prob_vjp";
  Vector<const float> grad{};      // (N,)
  Matrix<const float> params{};    // (N, D 3 K)
  Matrix<const std::uint8_t> x{};  // (N, D)
  std::int64_t levels = 256;
  std::int64_t n_mixtures = 1;
  Matrix<float> grad_params{};  // (N, D 3 K)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &LogisticMixtureLogProbVjp::grad);
    f("params", &LogisticMixtureLogProbVjp::params);
    f("x", &LogisticMixtureLogProbVjp::x);
    f("levels", &LogisticMixtureLogProbVjp::levels);
    f("n_mixtures", &LogisticMixtureLogProbVjp::n_mixtures);
    f("grad_params", &LogisticMixtureLogProbVjp::grad_params);
  }
};

GENCORE_API void run(const LogisticMixtureLogProb& op);
GENCORE_API void run(const LogisticMixtureLogProbVjp& op);

namespace detail {
template <class Op>
void logistic_mixture(const Op& op) {
  check::given(op.name, "params", op.params);
  check::given(op.name, "x", op.x);
  check::in_range(op.name, "levels", op.levels, 2, 256);
  check::in_range(op.name, "n_mixtures", op.n_mixtures, 1, 256);
  check::shape(op.name, "params", op.params, {op.x.shape[0], op.x.shape[1] * 3 * op.n_mixtures},
               "the rows of x, and three numbers for each unit and component");
  for (std::int64_t r = 0; op.readable() && r < op.x.shape[0]; ++r) {
    for (std::int64_t d = 0; d < op.x.shape[1]; ++d) {
      if (op.x.row(r)[d] < op.levels) continue;
      check::fail(op.name, "x", "to hold levels from 0 to " + std::to_string(op.levels - 1),
                  std::to_string(op.x.row(r)[d]) + " at (" + std::to_string(r) + ", " + std::to_string(d) + ")");
    }
  }
}
}  // namespace detail

inline void LogisticMixtureLogProb::check() const {
  detail::logistic_mixture(*this);
  check::shape(name, "out", out, {x.shape[0]}, "the rows of x");
  check::apart(name, "out", out, "params", params);
}

inline void LogisticMixtureLogProbVjp::check() const {
  detail::logistic_mixture(*this);
  check::shape(name, "grad", grad, {x.shape[0]}, "the rows of x");
  check::shape(name, "grad_params", grad_params, {params.shape[0], params.shape[1]}, "the shape of params");
  check::apart(name, "grad_params", grad_params, "params", params);
}

}  // namespace gencore::dense
