// Log-probabilities of levels under mixtures of logistics, and their gradients, as cpu/logistic_mixture.h has them: a team of
// threads for a unit, a component or a few for each of them.
//
// The limit: arithmetic, some 150 instructions a component forward and 250 back, against 12 bytes that are read: an H100
// issues 132 x 128 a cycle of 1.7 GHz, 5 and 9 ps a component. With 10 components 16 threads are at work, 6 of them for
// nothing.
#include "common.cuh"
#include "logistic_mixture.cuh"
#include "loss_kernels.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using dense::LogisticMixtureLogProb;
using dense::LogisticMixtureLogProbVjp;

constexpr int most_own = 256 / warp_lanes;  // components of a thread

// A unit and its level. Of levels that there are not, the probability is NaN.
struct Unit {
  const float* params;
  std::int64_t mixtures, level, levels;

  template <class Op>
  __device__ Unit(const Op& op, std::int64_t i)
      : params(op.params.data + i * 3 * op.n_mixtures),
        mixtures(op.n_mixtures),
        level(op.x.data[i]),
        levels(op.levels) {}
  __device__ bool first() const { return level == 0; }
  __device__ bool last() const { return level == levels - 1; }
  __device__ bool exists() const { return level < levels; }
};

// One component and the unit's level.
struct Component : Edges {
  float logit;
  bool free;  // whether the scale is its parameter's

  __device__ Component(const Unit& u, std::int64_t k)
      : Edges(u.levels, u.level, u.params[u.mixtures + k], u.params[2 * u.mixtures + k]),
        logit(u.params[k]),
        free(!(u.params[2 * u.mixtures + k] < least_log_scale)) {}
  // log(logistic(upper) - logistic(lower)), without a difference of numbers that are close.
  __device__ float log_mass(const Unit& u) const {
    const float below = u.first() ? 0.0f : softplus(lower), above = u.last() ? 0.0f : softplus(-upper);
    const float inside = u.first() || u.last() ? 0.0f : log(one_minus_exp_minus(width));
    return inside - below - above;
  }
};

// Logarithms of a unit's sums over components of weight times mass, both of them up to the weights' sum, and of that sum.
struct Sums {
  float joint, weights;
};

// log sum exp over a team's numbers, of which each thread has `own`.
__device__ float log_sum(const Team& team, const float (&x)[most_own], int own) {
  float top = -infinity;
#pragma unroll
  for (int i = 0; i < most_own; ++i) {
    if (i < own) top = max(top, x[i]);
  }
  top = team.max(top);
  double total = 0;
#pragma unroll
  for (int i = 0; i < most_own; ++i) {
    if (i < own) total += static_cast<double>(exp(x[i] - top));
  }
  return top + static_cast<float>(::log(team.sum(total)));
}

// How many components a thread of the team has: rank, rank + size, ...
__device__ int own_components(const Team& team, std::int64_t mixtures) {
  return mixtures > team.rank ? static_cast<int>((mixtures - team.rank + team.size - 1) / team.size) : 0;
}

// Fills `joint` with the thread's own.
__device__ Sums sums_of(const Team& team, const Unit& u, int own, float (&joint)[most_own]) {
  float logits[most_own];
#pragma unroll
  for (int i = 0; i < most_own; ++i) {
    if (i >= own) continue;
    const Component c(u, team.rank + i * team.size);
    logits[i] = c.logit;
    joint[i] = c.logit + c.log_mass(u);
  }
  const float all = log_sum(team, joint, own);
  return {all, log_sum(team, logits, own)};
}

// --- log-probabilities ---------------------------------------------------------------------------------------------------

struct UnitLogProb {
  LogisticMixtureLogProb op;
  double* units;

  __device__ void operator()(const Team& team, std::int64_t i, bool exists) const {
    const Unit u(op, exists ? i : 0);
    float joint[most_own];
    const Sums s = sums_of(team, u, own_components(team, u.mixtures), joint);
    if (!exists || team.rank != 0) return;
    units[i] = u.exists() ? static_cast<double>(s.joint) - static_cast<double>(s.weights) : double{nan_value};
  }
};

struct AddUnits {
  const double* units;
  std::int64_t columns;
  Vector<float> out;

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    double total = 0;
    for (std::int64_t d = team.rank; exists && d < columns; d += team.size) total += units[row * columns + d];
    total = team.sum(total);
    if (exists && team.rank == 0) out[row] = static_cast<float>(total);
  }
};

}  // namespace

void logistic_mixture_log_prob(const LogisticMixtureLogProb& op) {
  const std::int64_t count = op.x.size();
  DeviceScratch scratch(op, DeviceScratch::bytes<double>(count));
  double* units = scratch.carve<double>(count);
  for_each_row(op, count, op.n_mixtures, UnitLogProb{op, units});
  for_each_row(op, op.x.shape[0], op.x.shape[1], AddUnits{units, op.x.shape[1], op.out});
}

namespace {

// --- gradients -----------------------------------------------------------------------------------------------------------

// Share of the component in what it explains, times the slopes of its log-mass.
struct UnitVjp {
  LogisticMixtureLogProbVjp op;

  __device__ void operator()(const Team& team, std::int64_t i, bool exists) const {
    const Unit u(op, exists ? i : 0);
    const int own = own_components(team, u.mixtures);
    float joint[most_own];
    const Sums s = sums_of(team, u, own, joint);
    if (!exists) return;
    const float g = u.exists() ? op.grad[i / op.x.shape[1]] : nan_value;
    float* out = op.grad_params.data + i * 3 * u.mixtures;
#pragma unroll
    for (int n = 0; n < most_own; ++n) {
      if (n < own) component(u, team.rank + n * team.size, g, joint[n], s, out);
    }
  }
  __device__ static void component(const Unit& u, std::int64_t k, float g, float joint, const Sums& s, float* out) {
    const Component c(u, k);
    const float share = g * exp(joint - s.joint);
    const float by_upper = u.last() ? 0.0f : logistic(-c.upper), by_lower = u.first() ? 0.0f : logistic(c.lower);
    const bool inner = !u.first() && !u.last();
    const float inside = inner ? c.width * exp(-c.width) / one_minus_exp_minus(c.width) : 0.0f;
    const float by_scale = fmaf(c.upper, by_upper, inside) - c.lower * by_lower;
    out[k] = share - g * exp(c.logit - s.weights);
    out[u.mixtures + k] = -share * c.inverse_scale * (by_upper - by_lower);
    out[2 * u.mixtures + k] = -(c.free ? share : 0.0f) * by_scale;
  }
};

}  // namespace

void logistic_mixture_log_prob_vjp(const LogisticMixtureLogProbVjp& op) {
  for_each_row(op, op.x.size(), op.n_mixtures, UnitVjp{op});
}

void fill_logistic_mixture(runtime::Table& table) {
  table.dense.LogisticMixtureLogProb = logistic_mixture_log_prob;
  table.dense.LogisticMixtureLogProbVjp = logistic_mixture_log_prob_vjp;
}

}  // namespace gencore::cuda
