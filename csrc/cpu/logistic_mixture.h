// A mixture of logistics whose mass is gathered in bins: P(level) is what lies between the edges of its bin, the first and
// the last bin reaching to infinity. Levels l = 0 .. L - 1 stand at 2 l / (L - 1) - 1; parameters of a unit are K logits of
// the weights, K means, K logarithms of scales, which count as -7 below it.
#pragma once

#include "bernoulli_cost.h"

namespace gencore::GENCORE_LEVEL {

constexpr float least_log_scale = -7;
constexpr int most_mixtures = 256;

// Bins on the line from -1 to 1.
struct Bins {
  std::int64_t levels;
  float half;  // of a bin's width

  explicit Bins(std::int64_t levels) : levels(levels), half(1.0f / static_cast<float>(levels - 1)) {}
  F middle(F level) const { return fma(level, splat(2 * half), splat(-1.0f)); }
};

// Distances of a bin's edges from the means, in scales.
struct Edges {
  F inverse_scale, upper, lower, width;

  Edges(const Bins& bins, F middle, F mean, F log_scale)
      : inverse_scale(exp(-max(splat(least_log_scale), log_scale))),
        upper((middle - mean + bins.half) * inverse_scale),
        lower((middle - mean - bins.half) * inverse_scale),
        width(2 * bins.half * inverse_scale) {}
};

// log(logistic(upper) - logistic(lower)) = log logistic(upper) + log logistic(-lower) + log(1 - e^-(upper - lower)): no
// difference of numbers that are close. `level` is the same for all lanes.
GENCORE_INLINE F log_mass(const Edges& e, const Bins& bins, std::int64_t level) {
  const bool first = level == 0, last = level == bins.levels - 1;
  const F below = first ? F{} : softplus(e.lower), above = last ? F{} : softplus(-e.upper);
  const F inside = first || last ? F{} : log(one_minus_exp_minus(e.width));
  return inside - below - above;
}

// Logarithms of the probabilities of all levels, for a draw; -inf where one underflows. `out` has room for whole vectors.
inline void level_log_probs(const float* unit, std::int64_t mixtures, const Bins& bins, float* out) {
  float top = -__builtin_inff(), weight[most_mixtures + lanes];
  for (std::int64_t k = 0; k < mixtures; ++k) top = unit[k] > top ? unit[k] : top;
  double total = 0;
  for_each_vector(0, mixtures, [&](std::int64_t k, int valid) {
    store(weight + k, exp(load_or(unit + k, valid, top) - top));
    for (int i = 0; i < valid; ++i) total += static_cast<double>(weight[k + i]);
  });
  for (std::int64_t l = 0; l < bins.levels; l += lanes) {
    float level[lanes];
    for (int i = 0; i < lanes; ++i) level[i] = static_cast<float>(l + i);
    const F at = load(level), zero{}, one = splat(1.0f);
    const Mask first = less_equal(at, zero), last = less_equal(splat(static_cast<float>(bins.levels - 1)), at);
    F sum{};
    for (std::int64_t k = 0; k < mixtures; ++k) {
      const Edges e(bins, bins.middle(at), splat(unit[mixtures + k]), splat(unit[2 * mixtures + k]));
      const F below = select(first, one, logistic(-e.lower)), above = select(last, one, logistic(e.upper));
      const F inside = select(first, one, select(last, one, one_minus_exp_minus(e.width)));
      sum = fma(splat(weight[k]), below * above * inside, sum);
    }
    store(out + l, log(sum * splat(static_cast<float>(1 / total))));
  }
}

}  // namespace gencore::GENCORE_LEVEL
