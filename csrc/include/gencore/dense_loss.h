// Losses of a net's last layer and their gradients, each in one go over the logits.
#pragma once

#include "gencore/op.h"

// clang-format off
#define GENCORE_DENSE_LOSS_OPS(X)                                           \
  X(BernoulliLogProb) X(BernoulliLogProbVjp)                                \
  X(SoftmaxCrossEntropy) X(SoftmaxCrossEntropyVjp)                          \
  X(LogSumExp) X(LogSumExpVjp)
// clang-format on

namespace gencore::dense {

// out[r] = sum_d t x - softplus(x), the log-probability of targets t under independent Bernoulli units with logits x.
// Row r of the logits goes with row r mod N of the targets (N, D): S samples of a batch of N, one batch after another.
// Targets from 0 to 1. float64 sums of terms of one sign.
struct BernoulliLogProb : OpBase {
  static constexpr const char* name = "dense.bernoulli_log_prob";
  Matrix<const float> logits{};  // (S N, D)
  ConstStates targets{};         // (N, D); float32 targets may be real
  Vector<float> out{};           // (S N,)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("logits", &BernoulliLogProb::logits);
    f("targets", &BernoulliLogProb::targets);
    f("out", &BernoulliLogProb::out);
  }
};

// grad_logits[r, d] = grad[r] (t - logistic(x)). grad_logits may be the memory of logits.
struct BernoulliLogProbVjp : OpBase {
  static constexpr const char* name = "dense.bernoulli_log_prob_vjp";
  Vector<const float> grad{};    // (S N,)
  Matrix<const float> logits{};  // (S N, D)
  ConstStates targets{};         // (N, D)
  Matrix<float> grad_logits{};   // (S N, D)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &BernoulliLogProbVjp::grad);
    f("logits", &BernoulliLogProbVjp::logits);
    f("targets", &BernoulliLogProbVjp::targets);
    f("grad_logits", &BernoulliLogProbVjp::grad_logits);
  }
};

// out[r] = log sum_k exp(x[r, k]): -inf for a row of -inf, inf where an element is. float64 sums.
struct LogSumExp : OpBase {
  static constexpr const char* name = "dense.log_sum_exp";
  Matrix<const float> x{};  // (N, K)
  Vector<float> out{};      // (N,)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &LogSumExp::x);
    f("out", &LogSumExp::out);
  }
};

// grad_x[r] = grad[r] softmax(x[r]). Where the greatest elements are infinite they share alike. grad_x may be the memory
// of x.
struct LogSumExpVjp : OpBase {
  static constexpr const char* name = "dense.log_sum_exp_vjp";
  Vector<const float> grad{};  // (N,)
  Matrix<const float> x{};     // (N, K)
  Matrix<float> grad_x{};      // (N, K)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &LogSumExpVjp::grad);
    f("x", &LogSumExpVjp::x);
    f("grad_x", &LogSumExpVjp::grad_x);
  }
};

// out[r] = log sum_k exp(x[r, k]) - x[r, label[r]], labels from 0 to K - 1. float64 sums.
struct SoftmaxCrossEntropy : OpBase {
  static constexpr const char* name = "dense.softmax_cross_entropy";
  Matrix<const float> logits{};         // (N, K)
  Vector<const std::int64_t> labels{};  // (N,)
  Vector<float> out{};                  // (N,)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("logits", &SoftmaxCrossEntropy::logits);
    f("labels", &SoftmaxCrossEntropy::labels);
    f("out", &SoftmaxCrossEntropy::out);
  }
};

// grad_logits[r, k] = grad[r] (softmax(x[r])_k - [k = label[r]]). grad_logits may be the memory of logits.
struct SoftmaxCrossEntropyVjp : OpBase {
  static constexpr const char* name = "dense.softmax_cross_entropy_vjp";
  Vector<const float> grad{};           // (N,)
  Matrix<const float> logits{};         // (N, K)
  Vector<const std::int64_t> labels{};  // (N,)
  Matrix<float> grad_logits{};          // (N, K)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &SoftmaxCrossEntropyVjp::grad);
    f("logits", &SoftmaxCrossEntropyVjp::logits);
    f("labels", &SoftmaxCrossEntropyVjp::labels);
    f("grad_logits", &SoftmaxCrossEntropyVjp::grad_logits);
  }
};

GENCORE_API void run(const BernoulliLogProb& op);
GENCORE_API void run(const BernoulliLogProbVjp& op);
GENCORE_API void run(const SoftmaxCrossEntropy& op);
GENCORE_API void run(const SoftmaxCrossEntropyVjp& op);
GENCORE_API void run(const LogSumExp& op);
GENCORE_API void run(const LogSumExpVjp& op);

namespace detail {
inline void targets(const char* op, const Matrix<const float>& logits, const ConstStates& t) {
  check::given(op, "logits", logits);
  check::given(op, "targets", t);
  check::shape(op, "targets", t, {t.shape[0], logits.shape[1]}, "the columns of logits");
  const std::int64_t rows = logits.shape[0], n = t.shape[0];
  if (n == 0 ? rows != 0 : rows % n != 0) {
    check::fail(op, "logits", "to have a multiple of the " + std::to_string(n) + " rows of targets",
                std::to_string(rows) + " rows");
  }
}
inline void labels(const char* op, const Matrix<const float>& logits, const Vector<const std::int64_t>& label,
                   bool readable) {
  check::given(op, "logits", logits);
  check::shape(op, "labels", label, {logits.shape[0]}, "the rows of logits");
  for (std::int64_t r = 0; readable && r < label.shape[0]; ++r) {
    if (label[r] >= 0 && label[r] < logits.shape[1]) continue;
    check::fail(op, "labels", "to lie from 0 to " + std::to_string(logits.shape[1] - 1) + ", the columns of logits",
                std::to_string(label[r]) + " at row " + std::to_string(r));
  }
}
}  // namespace detail

inline void BernoulliLogProb::check() const {
  detail::targets(name, logits, targets);
  check::shape(name, "out", out, {logits.shape[0]}, "the rows of logits");
  check::apart(name, "out", out, "logits", logits);
}

inline void BernoulliLogProbVjp::check() const {
  detail::targets(name, logits, targets);
  check::shape(name, "grad", grad, {logits.shape[0]}, "the rows of logits");
  check::shape(name, "grad_logits", grad_logits, {logits.shape[0], logits.shape[1]}, "the shape of logits");
  check::apart(name, "grad_logits", grad_logits, "grad", grad);
}

inline void LogSumExp::check() const {
  check::given(name, "x", x);
  check::shape(name, "out", out, {x.shape[0]}, "the rows of x");
  check::apart(name, "out", out, "x", x);
}

inline void LogSumExpVjp::check() const {
  check::given(name, "x", x);
  check::shape(name, "grad", grad, {x.shape[0]}, "the rows of x");
  check::shape(name, "grad_x", grad_x, {x.shape[0], x.shape[1]}, "the shape of x");
  check::apart(name, "grad_x", grad_x, "grad", grad);
}

inline void SoftmaxCrossEntropy::check() const {
  detail::labels(name, logits, labels, readable());
  check::shape(name, "out", out, {logits.shape[0]}, "the rows of logits");
  check::apart(name, "out", out, "logits", logits);
}

inline void SoftmaxCrossEntropyVjp::check() const {
  detail::labels(name, logits, labels, readable());
  check::shape(name, "grad", grad, {logits.shape[0]}, "the rows of logits");
  check::shape(name, "grad_logits", grad_logits, {logits.shape[0], logits.shape[1]}, "the shape of logits");
  check::apart(name, "grad_logits", grad_logits, "grad", grad);
}

}  // namespace gencore::dense
