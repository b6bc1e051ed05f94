// A row vector times a matrix, c = a b for one row of a: bound by reading b, which happens once.
#pragma once

#include "gemm_pack.h"

namespace gencore::GENCORE_LEVEL {

// Adds rows p .. p + Depth of b, times their elements of a, to the sums that rest in c.
template <int Depth>
GENCORE_INLINE void add_rows(std::int64_t n, const float* a, const float* b, std::int64_t b_row, float* c, bool fresh) {
  F x[Depth];
  GENCORE_UNROLL
  for (int i = 0; i < Depth; ++i) x[i] = splat(a[i]);
  std::int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    F sum = fresh ? F{} : load(c + j);
    GENCORE_UNROLL
    for (int i = 0; i < Depth; ++i) sum = fma(x[i], load(b + i * b_row + j), sum);
    store(c + j, sum);
  }
  if (j < n) {
    const int valid = static_cast<int>(n - j);
    F sum = fresh ? F{} : load_first(c + j, valid);
    GENCORE_UNROLL
    for (int i = 0; i < Depth; ++i) sum = fma(x[i], load_first(b + i * b_row + j, valid), sum);
    store_first(c + j, sum, valid);
  }
}

// n columns of b, stored by rows: several rows at a time, read straight on, while c stays in the first-level cache.
inline void multiply_vector_rows(std::int64_t n, std::int64_t k, const float* a, const float* b, std::int64_t b_row,
                                 float* c) {
  constexpr int depth = 8;
  std::int64_t p = 0;
  for (; p + depth <= k; p += depth) add_rows<depth>(n, a + p, b + p * b_row, b_row, c, p == 0);
  for (; p < k; ++p) add_rows<1>(n, a + p, b + p * b_row, b_row, c, p == 0);
}

// Vectors * lanes columns of b, stored by columns (b_column apart): transposed on the way into the registers. A cache line
// of each column is used up at a time, since lines of many columns may compete for the same places.
template <int Vectors>
inline void multiply_vector_columns(std::int64_t k, const float* a, const float* b, std::int64_t b_column, float* c) {
  constexpr int line = 16;
  F sum[Vectors] = {};
  std::int64_t p = 0;
  for (; p + line <= k; p += line) {
    GENCORE_UNROLL
    for (int j = 0; j < Vectors; ++j) {
      GENCORE_UNROLL
      for (int q = 0; q < line; q += load_depth) {
        F v[load_depth];
        load_columns(b + j * lanes * b_column + p + q, b_column, v);
        GENCORE_UNROLL
        for (int i = 0; i < load_depth; ++i) sum[j] = fma(splat(a[p + q + i]), v[i], sum[j]);
      }
    }
  }
  for (; p < k; ++p) {
    GENCORE_UNROLL
    for (int j = 0; j < Vectors; ++j) {
      F v;
      for (int l = 0; l < lanes; ++l) v[l] = b[(j * lanes + l) * b_column + p];
      sum[j] = fma(splat(a[p]), v, sum[j]);
    }
  }
  GENCORE_UNROLL
  for (int j = 0; j < Vectors; ++j) store(c + j * lanes, sum[j]);
}

// n columns, at least one vector of them. The last vectors overlap the ones before: they compute the same bits again.
inline void multiply_vector_columns(std::int64_t n, std::int64_t k, const float* a, const float* b,
                                    std::int64_t b_column, float* c) {
  constexpr std::int64_t pair = 2 * lanes;
  if (n < pair) {
    multiply_vector_columns<1>(k, a, b, b_column, c);
    multiply_vector_columns<1>(k, a, b + (n - lanes) * b_column, b_column, c + n - lanes);
    return;
  }
  for (std::int64_t j = 0; j < n; j += pair) {
    const std::int64_t first = min_of(j, n - pair);
    multiply_vector_columns<2>(k, a, b + first * b_column, b_column, c + first);
  }
}

}  // namespace gencore::GENCORE_LEVEL
