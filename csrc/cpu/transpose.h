// Transposing on the way from memory to vectors.
#pragma once

#include "vec.h"

namespace gencore::GENCORE_LEVEL {

// Shuffles within quads (four floats), the same in each quad of a vector; and vectors loaded from two places, of which
// each fills one half.
#if defined(GENCORE_AVX512)
GENCORE_INLINE F unpack_low(F a, F b) { return (F)_mm512_unpacklo_ps((__m512)a, (__m512)b); }
GENCORE_INLINE F unpack_high(F a, F b) { return (F)_mm512_unpackhi_ps((__m512)a, (__m512)b); }
GENCORE_INLINE F low_pairs(F a, F b) { return (F)_mm512_unpacklo_pd((__m512d)a, (__m512d)b); }
GENCORE_INLINE F high_pairs(F a, F b) { return (F)_mm512_unpackhi_pd((__m512d)a, (__m512d)b); }
GENCORE_INLINE F load_halves(const float* low, const float* high) {
  const __m512 v = _mm512_castps256_ps512(_mm256_loadu_ps(low));
  return (F)_mm512_mask_broadcast_f32x8(v, 0xFF00, _mm256_loadu_ps(high));
}
#elif defined(GENCORE_AVX2)
GENCORE_INLINE F unpack_low(F a, F b) { return (F)_mm256_unpacklo_ps((__m256)a, (__m256)b); }
GENCORE_INLINE F unpack_high(F a, F b) { return (F)_mm256_unpackhi_ps((__m256)a, (__m256)b); }
GENCORE_INLINE F low_pairs(F a, F b) { return (F)_mm256_unpacklo_pd((__m256d)a, (__m256d)b); }
GENCORE_INLINE F high_pairs(F a, F b) { return (F)_mm256_unpackhi_pd((__m256d)a, (__m256d)b); }
GENCORE_INLINE F load_halves(const float* low, const float* high) {
  return (F)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}
#else
GENCORE_INLINE F unpack_low(F a, F b) { return __builtin_shuffle(a, b, I{0, 4, 1, 5}); }
GENCORE_INLINE F unpack_high(F a, F b) { return __builtin_shuffle(a, b, I{2, 6, 3, 7}); }
GENCORE_INLINE F low_pairs(F a, F b) { return __builtin_shuffle(a, b, I{0, 1, 4, 5}); }
GENCORE_INLINE F high_pairs(F a, F b) { return __builtin_shuffle(a, b, I{2, 3, 6, 7}); }
#endif

// Transposes the 4 x 4 block that the quads of four vectors hold.
GENCORE_INLINE void transpose_quads(F v[4]) {
  const F low01 = unpack_low(v[0], v[1]), low23 = unpack_low(v[2], v[3]);
  const F high01 = unpack_high(v[0], v[1]), high23 = unpack_high(v[2], v[3]);
  v[0] = low_pairs(low01, low23);
  v[1] = high_pairs(low01, low23);
  v[2] = low_pairs(high01, high23);
  v[3] = high_pairs(high01, high23);
}

// Columns 0 .. load_depth - 1 of the `lanes` rows at p: v[i] holds column i.
#if defined(GENCORE_AVX512)
constexpr int load_depth = 8;
GENCORE_INLINE void load_columns(const float* p, std::int64_t stride, F v[load_depth]) {
  GENCORE_UNROLL
  for (int r = 0; r < 8; ++r) v[r] = load_halves(p + r * stride, p + (r + 8) * stride);
  transpose_quads(v);
  transpose_quads(v + 4);
  const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
  GENCORE_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512d low = (__m512d)v[i], high = (__m512d)v[i + 4];
    v[i] = (F)_mm512_permutex2var_pd(low, even, high);
    v[i + 4] = (F)_mm512_permutex2var_pd(low, odd, high);
  }
}
#else
constexpr int load_depth = 4;
GENCORE_INLINE void load_columns(const float* p, std::int64_t stride, F v[load_depth]) {
  GENCORE_UNROLL
  for (int r = 0; r < 4; ++r) {
#if defined(GENCORE_AVX2)
    v[r] = load_halves(p + r * stride, p + (r + 4) * stride);
#else
    v[r] = load(p + r * stride);
#endif
  }
  transpose_quads(v);
}
#endif

}  // namespace gencore::GENCORE_LEVEL
