// A row vector times a matrix, c = a b for one row of a: bound by reading b, which happens once.
#pragma once

#include "gemm_pack.h"

namespace gencore::GENCORE_LEVEL {

constexpr std::int64_t line = 16;  // floats in a cache line

// How many floats from p on lie before the next multiple of `unit`, where the lines of b keep that distance; else 0.
GENCORE_INLINE std::int64_t misaligned(const float* p, std::int64_t stride, std::int64_t unit) {
  const auto at = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(p) / sizeof(float));
  return stride % unit == 0 ? -at & (unit - 1) : 0;
}

// Adds `Depth` rows of b, times their elements of a, to the sums in c. The first `head` columns go apart.
template <int Depth>
GENCORE_INLINE void add_rows(std::int64_t n, std::int64_t head, const float* a, const float* b, std::int64_t b_row,
                             float* c, bool fresh) {
  F x[Depth];
  GENCORE_UNROLL
  for (int i = 0; i < Depth; ++i) x[i] = splat(a[i]);
  const auto add_first = [&](std::int64_t j, int valid) {
    F sum = fresh ? F{} : load_first(c + j, valid);
    GENCORE_UNROLL
    for (int i = 0; i < Depth; ++i) sum = fma(x[i], load_first(b + i * b_row + j, valid), sum);
    store_first(c + j, sum, valid);
  };
  if (head > 0) add_first(0, static_cast<int>(head));
  std::int64_t j = head;
  for (; j + lanes <= n; j += lanes) {
    F sum = fresh ? F{} : load(c + j);
    GENCORE_UNROLL
    for (int i = 0; i < Depth; ++i) sum = fma(x[i], load(b + i * b_row + j), sum);
    store(c + j, sum);
  }
  if (j < n) add_first(j, static_cast<int>(n - j));
}

// n columns of b, stored by rows: several rows at a time, read straight on, while c stays in the first-level cache.
inline void multiply_vector_rows(std::int64_t n, std::int64_t k, const float* a, const float* b, std::int64_t b_row,
                                 float* c) {
  constexpr int depth = 8;
  const std::int64_t head = min_of(misaligned(b, b_row, lanes), n);
  std::int64_t p = 0;
  for (; p + depth <= k; p += depth) add_rows<depth>(n, head, a + p, b + p * b_row, b_row, c, p == 0);
  for (; p < k; ++p) add_rows<1>(n, head, a + p, b + p * b_row, b_row, c, p == 0);
}

// Vectors * lanes columns of b, stored by columns (b_column apart): transposed on the way into the registers; k is at
// least load_depth. A cache line of each column is used up at a time, since lines of many columns may compete for the
// same places.
template <int Vectors>
inline void multiply_vector_columns(std::int64_t k, const float* a, const float* b, std::int64_t b_column, float* c) {
  F sum[Vectors] = {};
  // Elements [begin, end), at most load_depth of them, out of a whole block that lies within b.
  const auto add_part = [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t p = min_of(begin, k - load_depth);
    for (int j = 0; j < Vectors; ++j) {
      F v[load_depth];
      load_columns(b + j * lanes * b_column + p, b_column, v);
      for (std::int64_t i = begin; i < end; ++i) sum[j] = fma(splat(a[i]), v[i - p], sum[j]);
    }
  };
  const std::int64_t head = min_of(misaligned(b, b_column, line), k);
  std::int64_t p = 0;
  for (; p < head; p = min_of(p + load_depth, head)) add_part(p, min_of(p + load_depth, head));
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
  for (; p < k; p += load_depth) add_part(p, min_of(p + load_depth, k));
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
