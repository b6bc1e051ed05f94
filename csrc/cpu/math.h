// Elementary functions on vectors. Errors are bounds over all float32 inputs, in units in the last place;
// tests/test_math.py measures them on every level. NaN stays NaN: where an operand of min or max is NaN, the second is
// taken.
#pragma once

#include "vec.h"

namespace gencore::GENCORE_LEVEL {

// e^r - 1 for |r| <= ln 2 / 2; the polynomial strays by 3e-9 of e^r.
GENCORE_INLINE F expm1_reduced(F r) {
  F p = splat(1.38206617e-3f);
  p = fma(p, r, splat(8.368674666e-3f));
  p = fma(p, r, splat(4.166826606e-2f));
  p = fma(p, r, splat(1.666652113e-1f));
  p = fma(p, r, splat(4.999999404e-1f));
  return fma(p, r * r, r);
}

// x - n ln 2, in two parts of ln 2 (Cody and Waite).
GENCORE_INLINE F minus_multiple_of_ln2(F x, F n) {
  return fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x));
}

// e^x; subnormal below -87.3, 0 below -104, inf above 88.7. 1.1 ulp.
// 2^n comes as two factors, so that no exponent overflows.
GENCORE_INLINE F exp(F x) {
  x = min(splat(89.0f), max(splat(-104.0f), x));
  const I n = round_to_int(x * 1.44269504088896341f), half = n >> 1;
  const F p = expm1_reduced(minus_multiple_of_ln2(x, to_float(n))) + 1.0f;
  return p * as_float((half + 127) << 23) * as_float((n - half + 127) << 23);
}

// e^-|x|, the tail that logistic and softplus are made of: 1.1 ulp, and 0 from |x| = 87.69 on, where e^-|x| < 2^-126.
// t's low bits are n + 127: shifted up they are 2^n, or 0 for n = -127.
GENCORE_INLINE F exp_minus_abs(F x) {
  const F a = max(splat(-88.0f), as_float(as_int(x) | static_cast<std::int32_t>(0x80000000u)));
  const F t = fma(a, splat(1.44269504088896341f), splat(12582912.0f + 127.0f));
  const F power = as_float(as_int(t) << 23);
  const F p = expm1_reduced(minus_multiple_of_ln2(a, t - splat(12582912.0f + 127.0f)));
  return fma(p, power, power);
}

// 1 - e^-x for x >= 0: the slope of softplus, from its value. 1.4 ulp, also where it is small.
GENCORE_INLINE F one_minus_exp_minus(F x) {
  const F a = max(splat(-88.0f), -x);
  const F n = round(a * 1.44269504088896341f);
  const F p = expm1_reduced(minus_multiple_of_ln2(a, n));
  const F power = as_float((round_to_int(n) + 127) << 23);
  return fma(-power, p, 1.0f - power);
}

// ln x; -inf at 0, and below it, where no kernel goes. 0.9 ulp.
GENCORE_INLINE F log(F x) {
  const Mask tiny = less(x, splat(1.17549435e-38f));  // subnormal: scale up
  const F scaled = select(tiny, x * 8388608.0f, x);
  // mantissa in [sqrt(1/2), sqrt(2)).
  const U bits_of_x = (U)scaled;
  const I e = (I)(bits_of_x - 0x3f3504f3u) >> 23;
  const F m = as_float((I)(bits_of_x - ((U)e << 23)));
  const F ef = to_float(e) - select(tiny, splat(23.0f), splat(0.0f));
  const F r = m - 1.0f;
  const F z = r * r;
  F p = splat(7.0376836292e-2f);
  p = fma(p, r, splat(-1.1514610310e-1f));
  p = fma(p, r, splat(1.1676998740e-1f));
  p = fma(p, r, splat(-1.2420140846e-1f));
  p = fma(p, r, splat(1.4249322787e-1f));
  p = fma(p, r, splat(-1.6668057665e-1f));
  p = fma(p, r, splat(2.0000714765e-1f));
  p = fma(p, r, splat(-2.4999993993e-1f));
  p = fma(p, r, splat(3.3333331174e-1f));
  F y = p * r * z;
  y = fma(ef, splat(-2.12194440e-4f), y);
  y = fma(z, splat(-0.5f), y);
  y = r + y;
  y = fma(ef, splat(0.693359375f), y);
  y = select(less(x, splat(__builtin_inff())), y, x);
  return select(less_equal(x, splat(0.0f)), splat(-__builtin_inff()), y);
}

// 1 / (1 + e^-x), from e^-|x|: no overflow at either end; 0 below -87.69. 2.5 ulp.
GENCORE_INLINE F logistic(F x) {
  const F e = exp_minus_abs(x);
  return select(less(splat(0.0f), x), splat(1.0f), e) / (1.0f + e);
}

// ln(1 + t) for t in [0, 1], true where 1 + t rounds, too (Kahan's correction). 2.5 ulp.
GENCORE_INLINE F log1p_unit(F t) {
  const F u = 1.0f + t;
  const F d = u - 1.0f;
  return select(less_equal(d, splat(0.0f)), t, log(u) * (t / select(less_equal(d, splat(0.0f)), splat(1.0f), d)));
}

// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|); 0 below -87.69. 2.9 ulp.
GENCORE_INLINE F softplus(F x) { return max(splat(0.0f), x) + log1p_unit(exp_minus_abs(x)); }

// tanh x: an odd polynomial for |x| < 0.625, else (1 - e^-2|x|) / (1 + e^-2|x|). 1.6 ulp.
GENCORE_INLINE F tanh(F x) {
  const F a = abs(x);
  const F e = exp_minus_abs(a + a);
  const F large = (1.0f - e) / (1.0f + e);
  const F z = x * x;
  F p = splat(-5.70498872745e-3f);
  p = fma(p, z, splat(2.06390887954e-2f));
  p = fma(p, z, splat(-5.37397155531e-2f));
  p = fma(p, z, splat(1.33314422036e-1f));
  p = fma(p, z, splat(-3.33332819422e-1f));
  const F positive = select(less(a, splat(0.625f)), fma(p * z, a, a), large);
  return as_float(as_int(positive) | (as_int(x) & static_cast<std::int32_t>(0x80000000u)));
}

// cos(2 pi t) and sin(2 pi t) for t in [0, 1]; zeros and ones are exact. 2.2 ulp.
GENCORE_INLINE void cos_sin_turn(F t, F& cosine, F& sine) {
  const F q = round(t * 4.0f);                         // quarter turns, 0 .. 4
  const F r = (t - q * 0.25f) * 6.28318530717958648f;  // |r| <= pi / 4; t - q / 4 is exact
  const F z = r * r;
  F s = splat(-1.9515295891e-4f);
  s = fma(s, z, splat(8.3321608736e-3f));
  s = fma(s, z, splat(-1.6666654611e-1f));
  s = fma(s * z, r, r);
  F c = splat(2.443315711809948e-5f);
  c = fma(c, z, splat(-1.388731625493765e-3f));
  c = fma(c, z, splat(4.166664568298827e-2f));
  c = fma(c * z, z, fma(z, splat(-0.5f), splat(1.0f)));
  const I quarter = round_to_int(q);
  const I odd = -(quarter & 1);  // all ones where sine and cosine swap
  const I cos_bits = (as_int(s) & odd) | (as_int(c) & ~odd);
  const I sin_bits = (as_int(c) & odd) | (as_int(s) & ~odd);
  cosine = as_float(cos_bits ^ (((quarter + 1) & 2) << 30));
  sine = as_float(sin_bits ^ ((quarter & 2) << 30));
}

// sum_j ln(1 + e^x_j): the positive parts and the product of the factors 1 + e^-|x_j|, each in [1, 2], kept apart, so
// that one logarithm serves `capacity` vectors.
struct SoftplusSum {
  static constexpr int capacity = 120;  // 2^120 is a float32

  F linear{}, product = splat(1.0f);

  // Lanes at or beyond `valid` do not count.
  GENCORE_INLINE void add(F x, std::int64_t valid) {
    F e = exp_minus_abs(x), positive = max(splat(0.0f), x);
    if (valid < lanes) {
      const Mask counts = less(to_float((I)iota()), splat(static_cast<float>(valid)));
      e = select(counts, e, splat(0.0f));
      positive = select(counts, positive, splat(0.0f));
    }
    linear += positive;
    product *= 1.0f + e;
  }
  GENCORE_INLINE double value() const { return sum(linear) + sum(log(product)); }
};

}  // namespace gencore::GENCORE_LEVEL
