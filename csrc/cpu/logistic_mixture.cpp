// Log-probabilities of levels under mixtures of logistics, and their gradients: lanes are the components of a mixture.
//
// The limit: arithmetic, some 150 instructions forward and 250 back for every 4, 8 or 16 components of a unit.
#include "logistic_mixture.h"

#include "../runtime/table.h"
#include "gencore/logistic_mixture.h"
#include "loss_kernels.h"
#include "parallel.h"

namespace gencore::GENCORE_LEVEL {
namespace {

constexpr float nothing = -__builtin_inff();
constexpr std::int64_t task_components = 2048;  // of one task, at least: some microseconds of work

// log sum exp of a unit's numbers, which are not all -inf.
GENCORE_INLINE float log_sum(const float* x, std::int64_t n) {
  F top = splat(nothing);
  for_each_vector(0, n, [&](std::int64_t k, int valid) { top = max(top, load_or(x + k, valid, nothing)); });
  const float greatest = largest(top);
  double total = 0;
  for_each_vector(0, n,
                  [&](std::int64_t k, int valid) { total += sum(exp(load_or(x + k, valid, nothing) - greatest)); });
  return greatest + static_cast<float>(__builtin_log(total));
}

// A unit and its level: vectors of components of its mixture.
struct Unit {
  const float* params;
  std::int64_t mixtures, level;
  Bins bins;

  GENCORE_INLINE F logit(std::int64_t k, int valid) const { return load_or(params + k, valid, nothing); }
  GENCORE_INLINE F log_scale(std::int64_t k, int valid) const {
    return load_or(params + 2 * mixtures + k, valid, 0.0f);
  }
  GENCORE_INLINE Edges edges(std::int64_t k, int valid) const {
    return Edges(bins, bins.middle(splat(static_cast<float>(level))), load_or(params + mixtures + k, valid, 0.0f),
                 log_scale(k, valid));
  }
  // Fills `joint` with the logarithms of weight times mass, up to the weights' sum; the logarithms of the two sums.
  struct Sums {
    float joint, weights;
  };
  GENCORE_INLINE Sums sums(float* joint) const {
    for_each_vector(0, mixtures, [&](std::int64_t k, int valid) {
      store_up_to(joint + k, logit(k, valid) + log_mass(edges(k, valid), bins, level), valid);
    });
    return {log_sum(joint, mixtures), log_sum(params, mixtures)};
  }
};

// Calls body(row, unit, parameters of the unit) for all rows, a row's units one after the other.
template <class Op, class Row>
void for_each_row(const Op& op, const Row& body) {
  const std::int64_t rows = op.x.shape[0], block = max_of(task_components / max_of(op.params.shape[1], 1), 1);
  parallel_for(ceil_div(rows, block), [&](std::int64_t task) {
    for (std::int64_t r = task * block; r < min_of(rows, (task + 1) * block); ++r) body(r);
  });
}

template <class Op>
Unit unit_of(const Op& op, std::int64_t r, std::int64_t d) {
  return {op.params.row(r) + d * 3 * op.n_mixtures, op.n_mixtures, op.x.row(r)[d], Bins(op.levels)};
}

// Share of the component in what it explains, times the slopes of its log-mass.
void unit_vjp(const Unit& u, float grad, float* out) {
  float joint[most_mixtures];
  const Unit::Sums s = u.sums(joint);
  const F g = splat(grad), zero{};
  const bool first = u.level == 0, last = u.level == u.bins.levels - 1;
  for_each_vector(0, u.mixtures, [&](std::int64_t k, int valid) {
    const Edges e = u.edges(k, valid);
    const F share = g * exp(load_or(joint + k, valid, nothing) - s.joint);
    const F by_upper = last ? zero : logistic(-e.upper), by_lower = first ? zero : logistic(e.lower);
    const F inside = first || last ? zero : e.width * exp(-e.width) / one_minus_exp_minus(e.width);
    const F by_scale = fma(e.upper, by_upper, inside) - e.lower * by_lower;
    const F free = select(less(u.log_scale(k, valid), splat(least_log_scale)), zero, share);
    store_up_to(out + k, share - g * exp(u.logit(k, valid) - s.weights), valid);
    store_up_to(out + u.mixtures + k, -share * e.inverse_scale * (by_upper - by_lower), valid);
    store_up_to(out + 2 * u.mixtures + k, -free * by_scale, valid);
  });
}

}  // namespace

void logistic_mixture_log_prob(const dense::LogisticMixtureLogProb& op) {
  for_each_row(op, [&](std::int64_t r) {
    float joint[most_mixtures];
    double total = 0;
    for (std::int64_t d = 0; d < op.x.shape[1]; ++d) {
      const Unit::Sums s = unit_of(op, r, d).sums(joint);
      total += static_cast<double>(s.joint) - static_cast<double>(s.weights);
    }
    op.out[r] = static_cast<float>(total);
  });
}

void logistic_mixture_log_prob_vjp(const dense::LogisticMixtureLogProbVjp& op) {
  for_each_row(op, [&](std::int64_t r) {
    for (std::int64_t d = 0; d < op.x.shape[1]; ++d) {
      unit_vjp(unit_of(op, r, d), op.grad[r], op.grad_params.row(r) + d * 3 * op.n_mixtures);
    }
  });
}

void fill_logistic_mixture(runtime::Table& table) {
  table.dense.LogisticMixtureLogProb = logistic_mixture_log_prob;
  table.dense.LogisticMixtureLogProbVjp = logistic_mixture_log_prob_vjp;
}

}  // namespace gencore::GENCORE_LEVEL
