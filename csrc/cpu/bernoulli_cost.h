// Log-probabilities of binary units from their logits, and the slopes: what is small near certainty, the tail e^-|x|, is
// kept apart from what is near 1, so that both stay exact to a few units in the last place; sums are float64.
#pragma once

#include "math.h"

namespace gencore::GENCORE_LEVEL {

// Calls body(first, valid) for the vectors of [begin, end); `valid` is less than `lanes` in the last alone.
template <class Body>
GENCORE_INLINE void for_each_vector(std::int64_t begin, std::int64_t end, const Body& body) {
  for (; begin + lanes <= end; begin += lanes) body(begin, lanes);
  if (begin < end) body(begin, static_cast<int>(end - begin));
}

// The first `valid` elements, and `rest` in the other lanes.
GENCORE_INLINE F load_or(const float* p, int valid, float rest) {
  if (valid == lanes) return load(p);
  return select(less(to_float((I)iota()), splat(static_cast<float>(valid))), load_first(p, valid), splat(rest));
}

// Targets as floats, and whether all that were read are legal.
class RealTargets {
 public:
  GENCORE_INLINE F load(const float* p, int valid) {
    const F t = valid == lanes ? GENCORE_LEVEL::load(p) : load_first(p, valid);
    inside_ &= bits(less_equal(splat(0.0f), t)) & bits(less_equal(t, splat(1.0f)));
    return t;
  }
  GENCORE_INLINE bool legal() const { return inside_ == (1u << lanes) - 1; }

 private:
  std::uint32_t inside_ = (1u << lanes) - 1;
};
class ByteTargets {
 public:
  GENCORE_INLINE F load(const std::uint8_t* p, int valid) {
    Bytes bytes{};
    if (valid == lanes) {
      std::memcpy(&bytes, p, lanes);
    } else {
      for (int i = 0; i < valid; ++i) bytes[i] = p[i];
    }
    seen_ |= bytes;
    return bytes_to_float(bytes);
  }
  GENCORE_INLINE bool legal() const {
    int seen = 0;
    for (int i = 0; i < lanes; ++i) seen |= seen_[i];
    return seen <= 1;
  }

 private:
  Bytes seen_{};
};
GENCORE_INLINE RealTargets targets_of(const float*) { return {}; }
GENCORE_INLINE ByteTargets targets_of(const std::uint8_t*) { return {}; }

// How much the target disagrees with the more likely state: -log p = weight |x| + log(1 + e^-|x|).
GENCORE_INLINE F disagreement(F x, F t) { return select(less(splat(0.0f), x), 1.0f - t, t); }

// t - logistic(x) as a difference of what is small near certainty.
GENCORE_INLINE F slope_of(F logit, F target) {
  const F tail = exp_minus_abs(logit), less_likely = tail / (1.0f + tail), weight = disagreement(logit, target);
  return select(less(splat(0.0f), logit), less_likely - weight, weight - less_likely);
}

// -log p of some units is linear + log(1 + factor).
struct Cost {
  F linear, factor;
};

GENCORE_INLINE Cost cost_of(F logit, F target) {
  const F zero = splat(0.0f);
  const F weight = disagreement(logit, target), tail = exp_minus_abs(logit);
  const F far = select(less_equal(weight, zero), zero, weight * abs(logit));  // also where 0 meets inf
  const Mask tiny = less(tail, splat(0x1p-26f));                              // ln(1 + tail) is tail
  return {far + select(tiny, tail, zero), select(tiny, zero, tail)};
}

// Sums of costs. Two vectors meet in float32 before they are widened: (1 + f)(1 + g) = 1 + (f + g + f g).
struct CostSum {
  D linear_low{}, linear_high{}, low = D{} + 1.0, high = D{} + 1.0;

  GENCORE_INLINE void add(const Cost& a) {
    linear_low += widen_low(a.linear);
    linear_high += widen_high(a.linear);
    low *= widen_low(a.factor) + 1.0;
    high *= widen_high(a.factor) + 1.0;
  }
  GENCORE_INLINE void add(const Cost& a, const Cost& b) {
    add(Cost{a.linear + b.linear, fma(a.factor, b.factor, a.factor + b.factor)});
  }
};

// sum over d of -log p, and whether all targets are legal.
template <class T>
double negative_log_prob(const float* x, const T* t, std::int64_t n, bool& legal) {
  constexpr std::int64_t block = 960;  // factors from 1 to 2 of one float64 product
  auto targets = targets_of(t);
  const auto cost_at = [&](std::int64_t d, int valid) {
    // A unit that is not there: a logit of -inf and a target of 0 add nothing.
    return cost_of(load_or(x + d, valid, -__builtin_inff()), targets.load(t + d, valid));
  };
  CostSum total;
  double logs = 0;
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t end = min_of(n, begin + block);
    std::int64_t d = begin;
    for (; d + 2 * lanes <= end; d += 2 * lanes) total.add(cost_at(d, lanes), cost_at(d + lanes, lanes));
    for_each_vector(d, end, [&](std::int64_t i, int valid) { total.add(cost_at(i, valid)); });
    logs += __builtin_log(product(total.low * total.high));
    total.low = total.high = D{} + 1.0;
  }
  legal = targets.legal();
  return sum(total.linear_low + total.linear_high) + logs;
}

}  // namespace gencore::GENCORE_LEVEL
