// Losses of a net's last layer and their gradients. What is small near certainty (the tail e^-|x| of a unit, the sum over
// all but the greatest logit) is kept apart from what is near 1, so that both stay exact to a few units in the last
// place; sums are float64.
#include "gencore/dense_loss.h"

#include "../runtime/reject.h"
#include "../runtime/table.h"
#include "bernoulli_cost.h"
#include "loss_kernels.h"
#include "parallel.h"

namespace gencore::GENCORE_LEVEL {
namespace {

constexpr std::int64_t task_elements = 8192;  // of one task: some microseconds of work

// Calls body(row) for all rows, tasks of whole rows at a time.
template <class Body>
void for_each_row(std::int64_t rows, std::int64_t columns, const Body& body) {
  const std::int64_t block = max_of(task_elements / max_of(columns, 1), 1);
  parallel_for(ceil_div(rows, block), [&](std::int64_t task) {
    for (std::int64_t r = task * block; r < min_of(rows, (task + 1) * block); ++r) body(r);
  });
}

// --- Bernoulli -------------------------------------------------------------------------------------------------------

template <class T>
void bernoulli_log_prob(const dense::BernoulliLogProb& op, const T* targets) {
  const std::int64_t units = op.logits.shape[1], n = op.targets.shape[0];
  Flag wrong;
  for_each_row(op.logits.shape[0], units, [&](std::int64_t r) {
    bool legal = true;
    op.out[r] = static_cast<float>(-negative_log_prob(op.logits.row(r), targets + r % n * units, units, legal));
    if (!legal) wrong.raise();
  });
  if (wrong.raised != 0) runtime::reject_targets(op.name, "targets", op.targets);
}

}  // namespace

void bernoulli_log_prob(const dense::BernoulliLogProb& op) {
  if (op.targets.type == StateType::u8)
    return bernoulli_log_prob(op, static_cast<const std::uint8_t*>(op.targets.data));
  bernoulli_log_prob(op, static_cast<const float*>(op.targets.data));
}

namespace {

template <class T>
void bernoulli_log_prob_vjp(const dense::BernoulliLogProbVjp& op, const T* targets) {
  const std::int64_t units = op.logits.shape[1], n = op.targets.shape[0];
  Flag wrong;
  for_each_row(op.logits.shape[0], units, [&](std::int64_t r) {
    const float* x = op.logits.row(r);
    const T* t = targets + r % n * units;
    float* out = op.grad_logits.row(r);
    const F grad = splat(op.grad[r]);
    auto given = targets_of(t);
    for_each_vector(0, units, [&](std::int64_t d, int valid) {
      const F logit = load_or(x + d, valid, 0.0f), target = given.load(t + d, valid);
      store_up_to(out + d, grad * slope_of(logit, target), valid);
    });
    if (!given.legal()) wrong.raise();
  });
  if (wrong.raised != 0) runtime::reject_targets(op.name, "targets", op.targets);
}

}  // namespace

void bernoulli_log_prob_vjp(const dense::BernoulliLogProbVjp& op) {
  if (op.targets.type == StateType::u8) {
    return bernoulli_log_prob_vjp(op, static_cast<const std::uint8_t*>(op.targets.data));
  }
  bernoulli_log_prob_vjp(op, static_cast<const float*>(op.targets.data));
}

namespace {

// --- softmax -----------------------------------------------------------------------------------------------------------

// A row of exponentials e^(x - top): `ties` elements are top, where it is 1, and `rest` is the sum of the others.
struct Exponentials {
  float top;
  double ties, rest;
  GENCORE_INLINE double total() const { return ties + rest; }
  // log sum exp(x) - top. The C library's log takes a fraction of log1p's time, and serves float32 down to 1 + 2^-20.
  GENCORE_INLINE double log_total() const {
    const double excess = ties - 1 + rest;
    return excess > 0x1p-20 ? __builtin_log(1 + excess) : __builtin_log1p(excess);
  }
};

// Of n elements; keep(first, values, valid) sees the exponentials. NaN makes NaN of rest.
template <class Keep>
GENCORE_INLINE Exponentials exponentials(const float* x, std::int64_t n, const Keep& keep) {
  constexpr float nothing = -__builtin_inff();
  F top = splat(nothing);
  for_each_vector(0, n, [&](std::int64_t k, int valid) { top = max(top, load_or(x + k, valid, nothing)); });
  const float greatest = largest(top);
  const F most = splat(greatest), zero = splat(0.0f);
  std::int64_t ties = 0;
  D low{}, high{};
  for_each_vector(0, n, [&](std::int64_t k, int valid) {
    const F v = load_or(x + k, valid, nothing);
    const Mask tie = less_equal(most, v);
    const F e = exp_minus_abs(v - most), others = select(tie, zero, e);
    ties += __builtin_popcount(bits(tie) & ((1u << valid) - 1));
    low += widen_low(others);
    high += widen_high(others);
    keep(k, select(tie, splat(1.0f), e), valid);
  });
  return {greatest, static_cast<double>(ties), sum(low + high)};
}

GENCORE_INLINE Exponentials exponentials(const float* x, std::int64_t n) {
  return exponentials(x, n, [](std::int64_t, F, int) {});
}

void log_sum_exp(const dense::LogSumExp& op) {
  const std::int64_t n = op.x.shape[1];
  for_each_row(op.x.shape[0], n, [&](std::int64_t r) {
    const Exponentials e = exponentials(op.x.row(r), n);
    op.out[r] = static_cast<float>(static_cast<double>(e.top) + e.log_total());
  });
}

// out = grad softmax(x), from the exponentials that it is filled with first.
GENCORE_INLINE Exponentials softmax_row(const float* x, std::int64_t n, float grad, float* out) {
  const Exponentials e = exponentials(
      x, n, [&](std::int64_t k, F values, int valid) { store_up_to(out + k, values, valid); });
  const F scale = splat(static_cast<float>(static_cast<double>(grad) / e.total()));
  for_each_vector(
      0, n, [&](std::int64_t k, int valid) { store_up_to(out + k, load_or(out + k, valid, 0.0f) * scale, valid); });
  return e;
}

void log_sum_exp_vjp(const dense::LogSumExpVjp& op) {
  const std::int64_t n = op.x.shape[1];
  for_each_row(op.x.shape[0], n, [&](std::int64_t r) { softmax_row(op.x.row(r), n, op.grad[r], op.grad_x.row(r)); });
}

// top - x[label], 0 also where both are inf.
GENCORE_INLINE double below_top(const Exponentials& e, float x) {
  return x == e.top ? 0.0 : static_cast<double>(e.top) - static_cast<double>(x);
}

}  // namespace

void softmax_cross_entropy(const dense::SoftmaxCrossEntropy& op) {
  const std::int64_t n = op.logits.shape[1];
  for_each_row(op.logits.shape[0], n, [&](std::int64_t r) {
    const float* x = op.logits.row(r);
    const Exponentials e = exponentials(x, n);
    op.out[r] = static_cast<float>(below_top(e, x[op.labels[r]]) + e.log_total());
  });
}

void softmax_cross_entropy_vjp(const dense::SoftmaxCrossEntropyVjp& op) {
  const std::int64_t n = op.logits.shape[1];
  for_each_row(op.logits.shape[0], n, [&](std::int64_t r) {
    const std::int64_t label = op.labels[r];
    const float x = op.logits.row(r)[label], grad = op.grad[r];  // x before its memory may be written
    float* out = op.grad_logits.row(r);
    const Exponentials e = softmax_row(op.logits.row(r), n, grad, out);
    // softmax - 1 at the label: minus the share of the others, which is exact where it is small.
    const double others = x == e.top ? e.ties - 1 + e.rest
                                     : e.total() - static_cast<double>(exp_minus_abs(splat(x - e.top))[0]);
    out[label] = static_cast<float>(-static_cast<double>(grad) * (others / e.total()));
  });
}

void fill_dense_loss(runtime::Table& table) {
  table.dense.BernoulliLogProb = bernoulli_log_prob;
  table.dense.BernoulliLogProbVjp = bernoulli_log_prob_vjp;
  table.dense.SoftmaxCrossEntropy = softmax_cross_entropy;
  table.dense.SoftmaxCrossEntropyVjp = softmax_cross_entropy_vjp;
  table.dense.LogSumExp = log_sum_exp;
  table.dense.LogSumExpVjp = log_sum_exp_vjp;
}

}  // namespace gencore::GENCORE_LEVEL
