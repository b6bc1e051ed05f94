// Elementary functions: the polynomials and steps of cpu/math.h one value at a time, so that the device gives what a CPU
// with fused multiply-add gives and the error bounds stated there hold here. --fmad=false: fused only where it says so.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace gencore::cuda {

constexpr float infinity = __builtin_inff(), nan_value = __builtin_nanf("");

// NaN stays NaN: where an operand is NaN, the second is taken.
__device__ inline float min(float a, float b) { return a < b ? a : b; }
__device__ inline float max(float a, float b) { return a > b ? a : b; }

// 2^n for -126 <= n <= 127, 0 for n = -127.
__device__ inline float power_of_two(int n) { return __uint_as_float(static_cast<unsigned>(n + 127) << 23); }

// e^r - 1 for |r| <= ln 2 / 2.
__device__ inline float expm1_reduced(float r) {
  float p = 1.38206617e-3f;
  p = fmaf(p, r, 8.368674666e-3f);
  p = fmaf(p, r, 4.166826606e-2f);
  p = fmaf(p, r, 1.666652113e-1f);
  p = fmaf(p, r, 4.999999404e-1f);
  return fmaf(p, r * r, r);
}

__device__ inline float minus_multiple_of_ln2(float x, float n) {
  return fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));
}

__device__ inline float exp(float x) {
  x = min(89.0f, max(-104.0f, x));
  const int n = __float2int_rn(x * 1.44269504088896341f), half = n >> 1;
  const float p = expm1_reduced(minus_multiple_of_ln2(x, static_cast<float>(n))) + 1.0f;
  return p * power_of_two(half) * power_of_two(n - half);
}

// e^-|x|; 0 from |x| = 87.69 on.
__device__ inline float exp_minus_abs(float x) {
  const float a = max(-88.0f, __uint_as_float(__float_as_uint(x) | 0x80000000u));
  const float t = fmaf(a, 1.44269504088896341f, 12582912.0f + 127.0f);
  const float power = __uint_as_float(__float_as_uint(t) << 23);
  const float p = expm1_reduced(minus_multiple_of_ln2(a, t - (12582912.0f + 127.0f)));
  return fmaf(p, power, power);
}

__device__ inline float log(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const unsigned bits = __float_as_uint(tiny ? x * 8388608.0f : x);
  const int e = static_cast<int>(bits - 0x3f3504f3u) >> 23;
  const float m = __uint_as_float(bits - (static_cast<unsigned>(e) << 23));
  const float ef = static_cast<float>(e) - (tiny ? 23.0f : 0.0f);
  const float r = m - 1.0f, z = r * r;
  float p = 7.0376836292e-2f;
  p = fmaf(p, r, -1.1514610310e-1f);
  p = fmaf(p, r, 1.1676998740e-1f);
  p = fmaf(p, r, -1.2420140846e-1f);
  p = fmaf(p, r, 1.4249322787e-1f);
  p = fmaf(p, r, -1.6668057665e-1f);
  p = fmaf(p, r, 2.0000714765e-1f);
  p = fmaf(p, r, -2.4999993993e-1f);
  p = fmaf(p, r, 3.3333331174e-1f);
  float y = p * r * z;
  y = fmaf(ef, -2.12194440e-4f, y);
  y = fmaf(z, -0.5f, y);
  y = r + y;
  y = fmaf(ef, 0.693359375f, y);
  y = x < infinity ? y : x;
  return x <= 0.0f ? -infinity : y;
}

__device__ inline float logistic(float x) {
  const float e = exp_minus_abs(x);
  return (0.0f < x ? 1.0f : e) / (1.0f + e);
}

// 1 - e^-x for x >= 0.
__device__ inline float one_minus_exp_minus(float x) {
  const float a = max(-88.0f, -x);
  const float n = rintf(a * 1.44269504088896341f);
  const float p = expm1_reduced(minus_multiple_of_ln2(a, n));
  const float power = power_of_two(__float2int_rn(n));
  return fmaf(-power, p, 1.0f - power);
}

// ln(1 + t) for t in [0, 1].
__device__ inline float log1p_unit(float t) {
  const float u = 1.0f + t, d = u - 1.0f;
  return d <= 0.0f ? t : log(u) * (t / d);
}

__device__ inline float softplus(float x) { return max(0.0f, x) + log1p_unit(exp_minus_abs(x)); }

__device__ inline float tanh(float x) {
  const float a = fabsf(x), e = exp_minus_abs(a + a), large = (1.0f - e) / (1.0f + e), z = x * x;
  float p = -5.70498872745e-3f;
  p = fmaf(p, z, 2.06390887954e-2f);
  p = fmaf(p, z, -5.37397155531e-2f);
  p = fmaf(p, z, 1.33314422036e-1f);
  p = fmaf(p, z, -3.33332819422e-1f);
  const float positive = a < 0.625f ? fmaf(p * z, a, a) : large;
  return __uint_as_float(__float_as_uint(positive) | (__float_as_uint(x) & 0x80000000u));
}

// sum_j ln(1 + e^x_j) of one thread's x: the positive parts and the product of the factors 1 + e^-|x_j|, each in [1, 2],
// kept apart, so that one logarithm serves many.
struct SoftplusSum {
  static constexpr int capacity = 120;  // 2^120 is a float32

  float linear = 0, product = 1;
  double total = 0;
  int count = 0;

  __device__ void add(float x) {
    linear += max(0.0f, x);
    product *= 1.0f + exp_minus_abs(x);
    if (++count == capacity) flush();
  }
  __device__ void flush() {
    total += static_cast<double>(linear) + static_cast<double>(log(product));
    linear = 0;
    product = 1;
    count = 0;
  }
  __device__ double value() {
    flush();
    return total;
  }
};

// cos(2 pi t) and sin(2 pi t) for t in [0, 1].
__device__ inline void cos_sin_turn(float t, float& cosine, float& sine) {
  const float q = rintf(t * 4.0f);
  const float r = (t - q * 0.25f) * 6.28318530717958648f;
  const float z = r * r;
  float s = -1.9515295891e-4f;
  s = fmaf(s, z, 8.3321608736e-3f);
  s = fmaf(s, z, -1.6666654611e-1f);
  s = fmaf(s * z, r, r);
  float c = 2.443315711809948e-5f;
  c = fmaf(c, z, -1.388731625493765e-3f);
  c = fmaf(c, z, 4.166664568298827e-2f);
  c = fmaf(c * z, z, fmaf(z, -0.5f, 1.0f));
  const unsigned quarter = static_cast<unsigned>(q);
  const bool odd = (quarter & 1u) != 0;
  cosine = __uint_as_float(__float_as_uint(odd ? s : c) ^ (((quarter + 1) & 2u) << 30));
  sine = __uint_as_float(__float_as_uint(odd ? c : s) ^ ((quarter & 2u) << 30));
}

}  // namespace gencore::cuda
