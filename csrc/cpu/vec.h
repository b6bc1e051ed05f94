// Vectors of the native width: the few operations that kernels are written in. Everything here is inlined into the
// namespace of one ISA level.
//
// F, I, U are vectors of `lanes` float, int32, uint32 (GCC vector types: + - * / & | ^ << >> work on them); Mask is the
// result of a comparison. A level without an instruction falls to a loop over lanes, which the compiler lowers.
#pragma once

#include <cstdint>
#include <cstring>

#include "gencore/view.h"

#if !defined(GENCORE_LEVEL)
#error "kernel sources are compiled once per ISA level, with GENCORE_LEVEL naming it"
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define GENCORE_AVX512 1
#define GENCORE_LANES 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define GENCORE_AVX2 1
#define GENCORE_LANES 8
#else
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#define GENCORE_LANES 4
#endif

#define GENCORE_UNROLL _Pragma("GCC unroll 32")

namespace gencore::GENCORE_LEVEL {

constexpr int lanes = GENCORE_LANES;

typedef float F __attribute__((vector_size(4 * GENCORE_LANES), may_alias));
typedef std::int32_t I __attribute__((vector_size(4 * GENCORE_LANES), may_alias));
typedef std::uint32_t U __attribute__((vector_size(4 * GENCORE_LANES), may_alias));
typedef std::uint64_t U64 __attribute__((vector_size(4 * GENCORE_LANES), may_alias));  // lanes / 2 of them
typedef double D __attribute__((vector_size(4 * GENCORE_LANES), may_alias));           // lanes / 2 of them

GENCORE_INLINE F splat(float x) { return x - F{}; }  // x - 0 is x, also for -0, so that a plain broadcast is left
GENCORE_INLINE U splat_u(std::uint32_t x) { return U{} + x; }
GENCORE_INLINE I splat_i(std::int32_t x) { return I{} + x; }
GENCORE_INLINE F load(const float* p) {
  F v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
GENCORE_INLINE void store(float* p, F v) { std::memcpy(p, &v, sizeof v); }
GENCORE_INLINE void store_u(std::uint32_t* p, U v) { std::memcpy(p, &v, sizeof v); }
GENCORE_INLINE F as_float(I v) { return (F)v; }
GENCORE_INLINE I as_int(F v) { return (I)v; }
GENCORE_INLINE F to_float(I v) { return __builtin_convertvector(v, F); }
GENCORE_INLINE U iota() {
  U v;
  for (int i = 0; i < lanes; ++i) v[i] = static_cast<std::uint32_t>(i);
  return v;
}
// Lane 2i from lane 2i of `even`, lane 2i + 1 from lane 2i of `odd`: 64-bit lanes' low halves, in line again.
GENCORE_INLINE U merge_low(U64 even, U64 odd) {
  return __builtin_shuffle((U)even, (U)odd, (iota() & ~1u) + (iota() & 1u) * GENCORE_LANES);
}
// The same for the high halves.
GENCORE_INLINE U merge_high(U64 even, U64 odd) {
  return __builtin_shuffle((U)even, (U)odd, (iota() | 1u) + (iota() & 1u) * GENCORE_LANES);
}
GENCORE_INLINE F abs(F v) { return (F)((I)v & 0x7FFFFFFF); }

#if defined(GENCORE_AVX512)

typedef __mmask16 Mask;
GENCORE_INLINE F fma(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
GENCORE_INLINE F min(F a, F b) { return (F)_mm512_min_ps((__m512)a, (__m512)b); }
GENCORE_INLINE F max(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
GENCORE_INLINE F sqrt(F a) { return (F)_mm512_sqrt_ps((__m512)a); }
// Element `index` mod 32 of 32.
GENCORE_INLINE F lookup_32(F low, F high, I index) {
  return (F)_mm512_permutex2var_ps((__m512)low, (__m512i)index, (__m512)high);
}
// 1 / a to 1 ulp, for normal a with a normal reciprocal: an estimate of 14 bits and a step of Newton's.
GENCORE_INLINE F reciprocal(F a) {
  const F r = (F)_mm512_rcp14_ps((__m512)a);
  return fma(fma(-a, r, F{} + 1.0f), r, r);
}
GENCORE_INLINE F round(F a) { return (F)_mm512_roundscale_ps((__m512)a, 8); }
GENCORE_INLINE I round_to_int(F a) { return (I)_mm512_cvtps_epi32((__m512)a); }
GENCORE_INLINE Mask less(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
GENCORE_INLINE Mask less_equal(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
GENCORE_INLINE F select(Mask m, F a, F b) { return (F)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a); }
GENCORE_INLINE F select_negative(F x, F a, F b) { return select(_mm512_movepi32_mask((__m512i)x), a, b); }
// Not plain `return m`: gcc 12 may spill that as 16 bits and read 32 back.
GENCORE_INLINE std::uint32_t bits(Mask m) { return _cvtmask16_u32(m); }
GENCORE_INLINE F load_first(const float* p, int n) { return (F)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
GENCORE_INLINE void store_first(float* p, F v, int n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
GENCORE_INLINE D widen_low(F v) { return (D)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)); }
GENCORE_INLINE D widen_high(F v) { return (D)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1)); }
GENCORE_INLINE U64 mul_even(U64 a, U64 b) { return (U64)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
// Low 16 bits: those of floor(p 2^16), for p in [0, 1). Under the exponent of 128 the unit in the last place is 2^-16.
GENCORE_INLINE U floor_16(F p) {
  return (U)_mm512_add_round_ps((__m512)p, _mm512_set1_ps(128.0f), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
}
// Whether the low and the high 16 bits of each lane of a are less than those of b: lanes of a[0], then of a[1].
struct Halves {
  std::uint64_t low, high;
};
GENCORE_INLINE Halves less_halves(const U* a, const U* b) {
  const std::uint64_t m = _mm512_cmplt_epu16_mask((__m512i)a[0], (__m512i)b[0]) |
                          static_cast<std::uint64_t>(_mm512_cmplt_epu16_mask((__m512i)a[1], (__m512i)b[1])) << 32;
  return {_pext_u64(m, 0x5555555555555555u), _pext_u64(m, 0xAAAAAAAAAAAAAAAAu)};
}
// Not 0 where one of those 16 bits are equal.
GENCORE_INLINE std::uint32_t any_equal_half(U a, U b) { return _mm512_cmpeq_epu16_mask((__m512i)a, (__m512i)b); }
GENCORE_INLINE U max_u(U a, U b) { return (U)_mm512_max_epu32((__m512i)a, (__m512i)b); }
GENCORE_INLINE std::uint32_t any_above(U v, std::uint32_t limit) {
  return bits(_mm512_cmpgt_epu32_mask((__m512i)v, _mm512_set1_epi32(static_cast<int>(limit))));
}
template <class T>
GENCORE_INLINE T xor3(T a, T b, T c) {
  return (T)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
}

#elif defined(GENCORE_AVX2)

typedef __m256 Mask;
GENCORE_INLINE F fma(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
GENCORE_INLINE F min(F a, F b) { return (F)_mm256_min_ps((__m256)a, (__m256)b); }
GENCORE_INLINE F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
GENCORE_INLINE F sqrt(F a) { return (F)_mm256_sqrt_ps((__m256)a); }
GENCORE_INLINE F round(F a) { return (F)_mm256_round_ps((__m256)a, 8); }
GENCORE_INLINE I round_to_int(F a) { return (I)_mm256_cvtps_epi32((__m256)a); }
GENCORE_INLINE Mask less(F a, F b) { return _mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ); }
GENCORE_INLINE Mask less_equal(F a, F b) { return _mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ); }
GENCORE_INLINE F select(Mask m, F a, F b) { return (F)_mm256_blendv_ps((__m256)b, (__m256)a, m); }
GENCORE_INLINE F select_negative(F x, F a, F b) { return select((Mask)x, a, b); }
GENCORE_INLINE std::uint32_t bits(Mask m) { return static_cast<std::uint32_t>(_mm256_movemask_ps(m)); }
GENCORE_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
GENCORE_INLINE F load_first(const float* p, int n) { return (F)_mm256_maskload_ps(p, first_lanes(n)); }
GENCORE_INLINE void store_first(float* p, F v, int n) { _mm256_maskstore_ps(p, first_lanes(n), (__m256)v); }
GENCORE_INLINE D widen_low(F v) { return (D)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)); }
GENCORE_INLINE D widen_high(F v) { return (D)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)); }
GENCORE_INLINE U64 mul_even(U64 a, U64 b) { return (U64)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
template <class T>
GENCORE_INLINE T xor3(T a, T b, T c) {
  return a ^ b ^ c;
}

#else  // portable

typedef I Mask;
GENCORE_INLINE F fma(F a, F b, F c) { return a * b + c; }  // two roundings: there may be no fused instruction
GENCORE_INLINE F min(F a, F b) { return a < b ? a : b; }
GENCORE_INLINE F max(F a, F b) { return a > b ? a : b; }
GENCORE_INLINE F sqrt(F a) {
  for (int i = 0; i < lanes; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
// Nearest even, for |a| < 2^22.
GENCORE_INLINE F round(F a) {
  const F magic = splat(12582912.0f);
  return (a + magic) - magic;
}
GENCORE_INLINE I round_to_int(F a) { return __builtin_convertvector(round(a), I); }
GENCORE_INLINE Mask less(F a, F b) { return a < b; }
GENCORE_INLINE Mask less_equal(F a, F b) { return a <= b; }
GENCORE_INLINE F select(Mask m, F a, F b) { return m ? a : b; }
// a where the sign bit of x is set, else b.
GENCORE_INLINE F select_negative(F x, F a, F b) { return select((I)x >> 31, a, b); }
#if defined(__SSE2__)
GENCORE_INLINE std::uint32_t bits(Mask m) { return static_cast<std::uint32_t>(_mm_movemask_ps((__m128)m)); }
#else
GENCORE_INLINE std::uint32_t bits(Mask m) {
  std::uint32_t b = 0;
  for (int i = 0; i < lanes; ++i) b |= (m[i] & 1u) << i;
  return b;
}
#endif
GENCORE_INLINE F load_first(const float* p, int n) {
  F v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
GENCORE_INLINE void store_first(float* p, F v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
GENCORE_INLINE D widen_low(F v) { return D{v[0], v[1]}; }
GENCORE_INLINE D widen_high(F v) { return D{v[2], v[3]}; }
#if defined(__SSE2__)
GENCORE_INLINE U64 mul_even(U64 a, U64 b) { return (U64)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
GENCORE_INLINE U64 mul_even(U64 a, U64 b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
#endif
template <class T>
GENCORE_INLINE T xor3(T a, T b, T c) {
  return a ^ b ^ c;
}

#endif

#if !defined(GENCORE_AVX512)
GENCORE_INLINE U floor_16(F p) { return (U) __builtin_convertvector(p * 65536.0f, I); }
typedef std::uint16_t U16 __attribute__((vector_size(4 * GENCORE_LANES), may_alias));
struct Halves {
  std::uint64_t low, high;
};
GENCORE_INLINE Halves less_halves(const U* a, const U* b) {
  const U m = (U)((U16)a[0] < (U16)b[0]), n = (U)((U16)a[1] < (U16)b[1]);
  return {bits((Mask)(m << 16)) | std::uint64_t{bits((Mask)(n << 16))} << lanes,
          bits((Mask)m) | std::uint64_t{bits((Mask)n)} << lanes};
}
GENCORE_INLINE std::uint32_t any_equal_half(U a, U b) {
  const U m = (U)((U16)a == (U16)b);
  return bits((Mask)(m | (m << 16)));
}
GENCORE_INLINE U max_u(U a, U b) { return a > b ? a : b; }
GENCORE_INLINE std::uint32_t any_above(U v, std::uint32_t limit) { return bits((Mask)(v > splat_u(limit))); }
#endif

// `lanes` bytes as floats.
typedef std::uint8_t Bytes __attribute__((vector_size(GENCORE_LANES), may_alias));
#if defined(GENCORE_AVX512)
GENCORE_INLINE F bytes_to_float(Bytes v) { return (F)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32((__m128i)v)); }
#elif defined(GENCORE_AVX2)
GENCORE_INLINE F bytes_to_float(Bytes v) {
  return (F)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>((std::uint64_t)v))));
}
#else
GENCORE_INLINE F bytes_to_float(Bytes v) {
  F f;
  for (int i = 0; i < lanes; ++i) f[i] = static_cast<float>(v[i]);
  return f;
}
#endif

// The first n of 64 bits as bytes of 0 and 1.
#if defined(GENCORE_AVX512)
GENCORE_INLINE void store_bits(std::uint8_t* p, std::uint64_t word, int n) {
  const __mmask64 first = n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
  _mm512_mask_storeu_epi8(p, first, _mm512_maskz_set1_epi8(word, 1));
}
#else
GENCORE_INLINE void store_bits(std::uint8_t* p, std::uint64_t word, int n) {
  for (int i = 0; i < n; i += 8, word >>= 8) {
    // Byte j keeps bit j of its copy; adding 127 carries any bit to the top of its byte, and no further.
    const std::uint64_t kept = ((word & 0xFFu) * 0x0101010101010101u) & 0x8040201008040201u;
    const std::uint64_t bytes = ((kept + 0x7F7F7F7F7F7F7F7Fu) >> 7) & 0x0101010101010101u;
    std::memcpy(p + i, &bytes, static_cast<std::size_t>(n - i < 8 ? n - i : 8));
  }
}
#endif

// Stores the first `count` lanes, however many they are.
GENCORE_INLINE void store_up_to(float* p, F v, std::int64_t count) {
  if (count >= lanes) {
    store(p, v);
  } else if (count > 0) {
    store_first(p, v, static_cast<int>(count));
  }
}

// Sum over lanes in lane order, in float64.
GENCORE_INLINE double sum(F v) {
  double s = 0;
  for (int i = 0; i < lanes; ++i) s += static_cast<double>(v[i]);
  return s;
}

// The lanes of v combined in a tree, halves first: fewer steps in a row than lane by lane.
template <class Combine>
GENCORE_INLINE F combine_lanes(F v, const Combine& combine) {
  GENCORE_UNROLL
  for (std::uint32_t half = lanes / 2; half > 0; half /= 2) v = combine(v, __builtin_shuffle(v, (I)(iota() ^ half)));
  return v;
}
template <class Combine>
GENCORE_INLINE D combine_lanes(D v, const Combine& combine) {
  U64 lane;
  for (int i = 0; i < lanes / 2; ++i) lane[i] = static_cast<std::uint64_t>(i);
  GENCORE_UNROLL
  for (std::uint64_t half = lanes / 4; half > 0; half /= 2) v = combine(v, __builtin_shuffle(v, lane ^ half));
  return v;
}
GENCORE_INLINE float largest(F v) {
  return combine_lanes(v, [](F a, F b) { return max(a, b); })[0];
}
GENCORE_INLINE double sum(D v) {
  return combine_lanes(v, [](D a, D b) { return a + b; })[0];
}
GENCORE_INLINE double product(D v) {
  return combine_lanes(v, [](D a, D b) { return a * b; })[0];
}

GENCORE_INLINE std::int64_t min_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
GENCORE_INLINE std::int64_t max_of(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
GENCORE_INLINE std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
GENCORE_INLINE std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

}  // namespace gencore::GENCORE_LEVEL
