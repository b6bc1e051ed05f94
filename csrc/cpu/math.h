// Elementary functions on vectors. Errors are bounds over all float32 inputs, in units in the last place;
// tests/test_math.py measures them on every level. NaN stays NaN: where an operand of min or max is NaN, the second is
// taken.
//
// A function of one vector is a chain of some 25 dependent instructions, and a processor looks ahead over three of them
// at most: `NAME_each` takes several vectors through the chain side by side, with the bits of one at a time.
#pragma once

#include "vec.h"

namespace gencore::GENCORE_LEVEL {

// e^r - 1 for |r| <= ln 2 / 2; the polynomial strays by 3e-9 of e^r.
template <int N>
GENCORE_INLINE void expm1_reduced_each(const F (&r)[N], F (&p)[N]) {
  constexpr float coefficient[] = {8.368674666e-3f, 4.166826606e-2f, 1.666652113e-1f, 4.999999404e-1f};
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) p[i] = fma(splat(1.38206617e-3f), r[i], splat(coefficient[0]));
  GENCORE_UNROLL
  for (int k = 1; k < 4; ++k) {
    GENCORE_UNROLL
    for (int i = 0; i < N; ++i) p[i] = fma(p[i], r[i], splat(coefficient[k]));
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) p[i] = fma(p[i], r[i] * r[i], r[i]);
}

// x - n ln 2, in two parts of ln 2 (Cody and Waite).
GENCORE_INLINE F minus_multiple_of_ln2(F x, F n) {
  return fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x));
}

// e^x; subnormal below -87.3, 0 below -104, inf above 88.7. 1.1 ulp.
// 2^n comes as two factors, so that no exponent overflows.
template <int N>
GENCORE_INLINE void exp_each(F (&x)[N]) {
  I n[N];
  F p[N];
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    x[i] = min(splat(89.0f), max(splat(-104.0f), x[i]));
    n[i] = round_to_int(x[i] * 1.44269504088896341f);
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) x[i] = minus_multiple_of_ln2(x[i], to_float(n[i]));
  expm1_reduced_each(x, p);
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    const I half = n[i] >> 1;
    x[i] = (p[i] + 1.0f) * as_float((half + 127) << 23) * as_float((n[i] - half + 127) << 23);
  }
}
GENCORE_INLINE F exp(F x) {
  F v[1] = {x};
  exp_each(v);
  return v[0];
}

// e^-|x|, the tail that logistic and softplus are made of: 1.1 ulp, and 0 from |x| = 87.69 on, where e^-|x| < 2^-126.
// t's low bits are n + 127: shifted up they are 2^n, or 0 for n = -127.
template <int N>
GENCORE_INLINE void exp_minus_abs_each(F (&x)[N]) {
  F t[N], p[N];
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    x[i] = max(splat(-88.0f), as_float(as_int(x[i]) | static_cast<std::int32_t>(0x80000000u)));
    t[i] = fma(x[i], splat(1.44269504088896341f), splat(12582912.0f + 127.0f));
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) x[i] = minus_multiple_of_ln2(x[i], t[i] - splat(12582912.0f + 127.0f));
  expm1_reduced_each(x, p);
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    const F power = as_float(as_int(t[i]) << 23);
    x[i] = fma(p[i], power, power);
  }
}
GENCORE_INLINE F exp_minus_abs(F x) {
  F v[1] = {x};
  exp_minus_abs_each(v);
  return v[0];
}

// 1 - e^-x for x >= 0: the slope of softplus, from its value. 1.4 ulp, also where it is small.
GENCORE_INLINE F one_minus_exp_minus(F x) {
  const F a = max(splat(-88.0f), -x);
  const F n = round(a * 1.44269504088896341f);
  const F r[1] = {minus_multiple_of_ln2(a, n)};
  F p[1];
  expm1_reduced_each(r, p);
  const F power = as_float((round_to_int(n) + 127) << 23);
  return fma(-power, p[0], 1.0f - power);
}

// ln(x 2^-shift) of normal, finite x > 0.
template <int N>
GENCORE_INLINE void log_normal_each(F (&x)[N], F shift = F{}) {
  constexpr float coefficient[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                   -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
  F exponent[N], r[N], p[N];
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {  // mantissa in [sqrt(1/2), sqrt(2))
    const U bits_of_x = (U)x[i];
    const I e = (I)(bits_of_x - 0x3f3504f3u) >> 23;
    r[i] = as_float((I)(bits_of_x - ((U)e << 23))) - 1.0f;
    exponent[i] = to_float(e) - shift;
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) p[i] = fma(splat(7.0376836292e-2f), r[i], splat(coefficient[0]));
  GENCORE_UNROLL
  for (int k = 1; k < 8; ++k) {
    GENCORE_UNROLL
    for (int i = 0; i < N; ++i) p[i] = fma(p[i], r[i], splat(coefficient[k]));
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    const F z = r[i] * r[i];
    F y = fma(exponent[i], splat(-2.12194440e-4f), p[i] * r[i] * z);
    y = r[i] + fma(z, splat(-0.5f), y);
    x[i] = fma(exponent[i], splat(0.693359375f), y);
  }
}

// ln x; -inf at 0, and below it, where no kernel goes. 0.9 ulp. Subnormal x is scaled up first.
GENCORE_INLINE F log(F x) {
  const Mask tiny = less(x, splat(1.17549435e-38f));
  F v[1] = {select(tiny, x * 8388608.0f, x)};
  log_normal_each(v, select(tiny, splat(23.0f), splat(0.0f)));
  const F y = select(less(x, splat(__builtin_inff())), v[0], x);
  return select(less_equal(x, splat(0.0f)), splat(-__builtin_inff()), y);
}

// 1 / (1 + e^-x), from e^-|x|: no overflow at either end; 0 below -87.69. 2.5 ulp.
GENCORE_INLINE F logistic(F x) {
  const F e = exp_minus_abs(x);
  return select(less(splat(0.0f), x), splat(1.0f), e) / (1.0f + e);
}

// The same for x >= -87, and what it is there, 1.6e-38, below. 6.1 ulp at the far end, less than 2.5 + |x| / 20.
// Faster where 32 numbers can be looked up at once: e^-x = 2^(n / 32) e^r, so that a square is enough of e^r, and there
// is no division.
template <int N>
GENCORE_INLINE void logistic_from_87_each(F (&x)[N]) {
#if defined(GENCORE_AVX512)
  // 2^(i / 32) without i at the place where n adds it: bits, less i 2^18.
  static constexpr std::uint32_t table[32] = {
      0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
      0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
      0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
      0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3};
  F low, high, r[N], power[N];
  std::memcpy(&low, table, sizeof low);
  std::memcpy(&high, table + lanes, sizeof high);
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    x[i] = min(splat(87.0f), max(splat(-87.0f), x[i]));
    const F n = fma(x[i], splat(-46.16624130844683f), splat(12582912.0f));
    power[i] = as_float(as_int(lookup_32(low, high, as_int(n))) + (as_int(n) << 18));
    r[i] = fma(n - splat(12582912.0f), splat(0.0216608493924983f),
               x[i]);  // minus what is left of -x, at most ln 2 / 64
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    const F slope = fma(r[i], splat(-0.5f), splat(1.00001466f));  // the excess spreads the error of the missing cube
    x[i] = reciprocal(fma(power[i] * -r[i], slope, power[i] + 1.0f));
  }
#else
  F t[N], p[N];
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    x[i] = -min(splat(87.0f), max(splat(-87.0f), x[i]));
    t[i] = fma(x[i], splat(1.44269504088896341f), splat(12582912.0f + 127.0f));
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) x[i] = minus_multiple_of_ln2(x[i], t[i] - splat(12582912.0f + 127.0f));
  expm1_reduced_each(x, p);
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    const F power = as_float(as_int(t[i]) << 23);
    x[i] = 1.0f / (1.0f + fma(p[i], power, power));
  }
#endif
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
template <int N>
GENCORE_INLINE void cos_sin_turn_each(const F (&t)[N], F (&cosine)[N], F (&sine)[N]) {
  F q[N], r[N], z[N];
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    q[i] = round(t[i] * 4.0f);                            // quarter turns, 0 .. 4
    r[i] = (t[i] - q[i] * 0.25f) * 6.28318530717958648f;  // |r| <= pi / 4; t - q / 4 is exact
    z[i] = r[i] * r[i];
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    sine[i] = fma(splat(-1.9515295891e-4f), z[i], splat(8.3321608736e-3f));
    cosine[i] = fma(splat(2.443315711809948e-5f), z[i], splat(-1.388731625493765e-3f));
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    sine[i] = fma(sine[i], z[i], splat(-1.6666654611e-1f));
    cosine[i] = fma(cosine[i], z[i], splat(4.166664568298827e-2f));
  }
  GENCORE_UNROLL
  for (int i = 0; i < N; ++i) {
    const F s = fma(sine[i] * z[i], r[i], r[i]);
    const F c = fma(cosine[i] * z[i], z[i], fma(z[i], splat(-0.5f), splat(1.0f)));
    const I quarter = round_to_int(q[i]);
    const I odd = -(quarter & 1);  // all ones where sine and cosine swap
    const I cos_bits = (as_int(s) & odd) | (as_int(c) & ~odd);
    const I sin_bits = (as_int(c) & odd) | (as_int(s) & ~odd);
    cosine[i] = as_float(cos_bits ^ (((quarter + 1) & 2) << 30));
    sine[i] = as_float(sin_bits ^ ((quarter & 2) << 30));
  }
}
GENCORE_INLINE void cos_sin_turn(F t, F& cosine, F& sine) {
  const F v[1] = {t};
  F c[1], s[1];
  cos_sin_turn_each(v, c, s);
  cosine = c[0];
  sine = s[0];
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
