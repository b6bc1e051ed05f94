// Losses of a net's last layer and their gradients, each with a team of threads for a row. As on the CPU, what is small near
// certainty (the tail e^-|x| of a unit, the sum over all but the greatest logit) is kept apart from what is near 1; sums
// are float64.
//
// The limit: a loss reads 5 or 8 bytes an element, a gradient moves as much and 4 more; at 3 TB/s 3 ps.
#include "bernoulli_cost.cuh"
#include "common.cuh"
#include "loss_kernels.cuh"
#include "math.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

// --- Bernoulli -------------------------------------------------------------------------------------------------------

struct LogProb {
  Matrix<const float> logits;
  Targets targets;
  std::int64_t target_rows;
  Vector<float> out;

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t n = logits.shape[1], target = row % target_rows * n;
    BernoulliCost cost;
    for (std::int64_t d = team.rank; exists && d < n; d += team.size)
      cost.add(logits[row * n + d], targets[target + d]);
    const double total = team.sum(cost.value());
    if (exists && team.rank == 0) out[row] = static_cast<float>(-total);
  }
};

}  // namespace

void bernoulli_log_prob(const dense::BernoulliLogProb& op) {
  const std::int64_t rows = op.logits.shape[0];
  for_each_row(op, rows, op.logits.shape[1], LogProb{op.logits, Targets(op.targets), op.targets.shape[0], op.out});
}

namespace {

// grad (t - logistic(x)).
struct LogProbVjp {
  dense::BernoulliLogProbVjp op;
  Targets targets;

  __device__ void operator()(std::int64_t i) const {
    const std::int64_t n = op.logits.shape[1];
    std::int64_t row, d;
    divide(i, n, row, d);
    op.grad_logits[i] = op.grad[row] * bernoulli_slope(op.logits[i], targets[row % op.targets.shape[0] * n + d]);
  }
};

}  // namespace

void bernoulli_log_prob_vjp(const dense::BernoulliLogProbVjp& op) {
  for_each_element(op, op.logits.size(), LogProbVjp{op, Targets(op.targets)});
}

namespace {

// --- softmax -----------------------------------------------------------------------------------------------------------

// A row of exponentials e^(x - top): `ties` elements are top, where it is 1, and `rest` is the sum of the others.
struct Exponentials {
  float top;
  double ties, rest;
  __device__ double total() const { return ties + rest; }
  __device__ double log_total() const { return ::log1p(ties - 1 + rest); }  // less top
};

__device__ float exponential_of(float x, float top) { return top <= x ? 1.0f : exp_minus_abs(x - top); }

// Of n elements (0 where there is no row), for all of a team. NaN makes NaN of rest.
__device__ Exponentials exponentials(const Team& team, const float* x, std::int64_t n) {
  float top = -infinity;
  for (std::int64_t k = team.rank; k < n; k += team.size) top = max(top, x[k]);
  // A NaN that a thread ends on shows in the sums, whatever the maximum is.
  top = team.max(top);
  long long ties = 0;
  double rest = 0;
  for (std::int64_t k = team.rank; k < n; k += team.size) {
    const bool tie = top <= x[k];
    ties += static_cast<long long>(tie);
    rest += tie ? 0.0 : static_cast<double>(exp_minus_abs(x[k] - top));
  }
  return {top, static_cast<double>(team.sum(ties)), team.sum(rest)};
}

struct LogSumExpOf {
  dense::LogSumExp op;
  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const Exponentials e = exponentials(team, op.x.row(row), exists ? op.x.shape[1] : 0);
    if (exists && team.rank == 0) op.out[row] = static_cast<float>(static_cast<double>(e.top) + e.log_total());
  }
};

void log_sum_exp(const dense::LogSumExp& op) { for_each_row(op, op.x.shape[0], op.x.shape[1], LogSumExpOf{op}); }

// out = grad softmax(x). out may be x: a thread writes only what it alone reads.
__device__ Exponentials softmax_row(const Team& team, const float* x, std::int64_t n, float grad, float* out) {
  const Exponentials e = exponentials(team, x, n);
  const float scale = static_cast<float>(static_cast<double>(grad) / e.total());
  for (std::int64_t k = team.rank; k < n; k += team.size) out[k] = exponential_of(x[k], e.top) * scale;
  return e;
}

struct LogSumExpVjpOf {
  dense::LogSumExpVjp op;
  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    softmax_row(team, op.x.row(row), exists ? op.x.shape[1] : 0, exists ? op.grad[row] : 0.0f, op.grad_x.row(row));
  }
};

void log_sum_exp_vjp(const dense::LogSumExpVjp& op) {
  for_each_row(op, op.x.shape[0], op.x.shape[1], LogSumExpVjpOf{op});
}

// Labels beyond the categories, which nobody waits for, make NaN.
struct CrossEntropy {
  dense::SoftmaxCrossEntropy op;
  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t n = op.logits.shape[1];
    const float* x = op.logits.row(row);
    const Exponentials e = exponentials(team, x, exists ? n : 0);
    if (!exists || team.rank != 0) return;
    const std::int64_t label = op.labels[row];
    if (label < 0 || label >= n) {
      op.out[row] = nan_value;
      return;
    }
    const double below = x[label] == e.top ? 0.0 : static_cast<double>(e.top) - static_cast<double>(x[label]);
    op.out[row] = static_cast<float>(below + e.log_total());
  }
};

}  // namespace

void softmax_cross_entropy(const dense::SoftmaxCrossEntropy& op) {
  for_each_row(op, op.logits.shape[0], op.logits.shape[1], CrossEntropy{op});
}

namespace {

struct CrossEntropyVjp {
  dense::SoftmaxCrossEntropyVjp op;
  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t n = op.logits.shape[1], label = exists ? op.labels[row] : 0;
    const bool known = exists && label >= 0 && label < n;
    const float grad = exists ? known ? op.grad[row] : nan_value : 0.0f;
    float* out = op.grad_logits.row(row);
    const float x = known ? op.logits.row(row)[label] : 0.0f;  // before its memory may be written
    const Exponentials e = softmax_row(team, op.logits.row(row), exists ? n : 0, grad, out);
    // softmax - 1 at the label, by the thread that wrote there: minus the share of the others, exact where it is small.
    if (!known || label % team.size != team.rank) return;
    const double others = x == e.top ? e.ties - 1 + e.rest : e.total() - static_cast<double>(exp_minus_abs(x - e.top));
    out[label] = static_cast<float>(-static_cast<double>(grad) * (others / e.total()));
  }
};

}  // namespace

void softmax_cross_entropy_vjp(const dense::SoftmaxCrossEntropyVjp& op) {
  for_each_row(op, op.logits.shape[0], op.logits.shape[1], CrossEntropyVjp{op});
}

void fill_dense_loss(runtime::Table& table) {
  table.dense.BernoulliLogProb = bernoulli_log_prob;
  table.dense.BernoulliLogProbVjp = bernoulli_log_prob_vjp;
  table.dense.SoftmaxCrossEntropy = softmax_cross_entropy;
  table.dense.SoftmaxCrossEntropyVjp = softmax_cross_entropy_vjp;
  table.dense.LogSumExp = log_sum_exp;
  table.dense.LogSumExpVjp = log_sum_exp_vjp;
}

}  // namespace gencore::cuda
