// Panels of b for the tile kernel: panel_columns columns, row after row, so that the inner loop reads straight on.
#pragma once

#include "gemm_tile.h"

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

// Packs rows 0 .. k of b (row p at b + p * stride), the columns of `span`.
inline void pack_rows(std::int64_t k, const float* b, std::int64_t stride, const Span& span, float* panel) {
  const std::int64_t width = span.vectors * lanes;
  for (std::int64_t p = 0; p < k; ++p, b += stride, panel += width) {
    if (span.masked()) {
      store(panel, load_first(b, span.columns));
      continue;
    }
    for (int j = 0; j + 1 < span.vectors; ++j) store(panel + j * lanes, load(b + j * lanes));
    store(panel + width - lanes, load(b + span.last()));
  }
}

// The same where b is stored by columns (column j at b + j * stride).
inline void pack_columns(std::int64_t k, const float* b, std::int64_t stride, const Span& span, float* panel) {
  const std::int64_t width = span.vectors * lanes;
  for (int j = 0; j < span.vectors; ++j) {
    const float* in = b + (j + 1 == span.vectors ? span.last() : j * lanes) * stride;
    float* out = panel + j * lanes;
    const int columns = span.masked() ? span.columns : lanes;
    std::int64_t p = 0;
    for (; columns == lanes && p + load_depth <= k; p += load_depth) {
      F v[load_depth];
      load_columns(in + p, stride, v);
      GENCORE_UNROLL
      for (int i = 0; i < load_depth; ++i) store(out + (p + i) * width, v[i]);
    }
    for (; p < k; ++p) {
      for (int l = 0; l < columns; ++l) out[p * width + l] = in[l * stride + p];
    }
  }
}

}  // namespace gencore::GENCORE_LEVEL
