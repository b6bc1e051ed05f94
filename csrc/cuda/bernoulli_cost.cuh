// Log-probabilities of binary units from their logits, and the slopes, as cpu/bernoulli_cost.h has them: what is small near
// certainty, the tail e^-|x|, is kept apart from what is near 1; sums are float64.
#pragma once

#include "gencore/view.h"
#include "math.cuh"

namespace gencore::cuda {

struct Targets {
  const void* data;
  bool bytes;
  explicit Targets(const ConstStates& s) : data(s.data), bytes(s.type == StateType::u8) {}
  __device__ float operator[](std::int64_t i) const {
    return bytes ? static_cast<float>(static_cast<const std::uint8_t*>(data)[i]) : static_cast<const float*>(data)[i];
  }
};

// How much the target disagrees with the more likely state: -log p = weight |x| + log(1 + e^-|x|).
__device__ inline float disagreement(float x, float t) { return 0.0f < x ? 1.0f - t : t; }

// t - logistic(x) as a difference of what is small near certainty.
__device__ inline float bernoulli_slope(float x, float t) {
  const float tail = exp_minus_abs(x), less_likely = tail / (1.0f + tail), weight = disagreement(x, t);
  return 0.0f < x ? less_likely - weight : weight - less_likely;
}

// The sum of -log p over one thread's units.
struct BernoulliCost {
  static constexpr int factors = 960;  // from 1 to 2, of one float64 product

  double linear = 0, product = 1, logs = 0;
  int held = 0;

  __device__ void add(float x, float t) {
    const float weight = disagreement(x, t), tail = exp_minus_abs(x);
    if (!(weight <= 0.0f)) linear += static_cast<double>(weight * fabsf(x));  // not where 0 meets inf
    if (tail < 0x1p-26f) {                                                    // ln(1 + tail) is tail
      linear += static_cast<double>(tail);
    } else {
      product *= 1.0 + static_cast<double>(tail);
    }
    if (++held < factors) return;
    logs += ::log(product);
    product = 1;
    held = 0;
  }
  __device__ double value() const { return linear + (logs + ::log(product)); }
};

}  // namespace gencore::cuda
