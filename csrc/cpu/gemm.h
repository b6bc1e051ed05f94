// c = epilogue(a b): every element is one chain of fused multiply-adds over ascending k.
#pragma once

#include "parallel.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {

struct Identity {
  GENCORE_INLINE F operator()(F x, std::int64_t) const { return x; }
};

// a (m, k), b (k, n) by strides; c (m, n) rows ldc apart; epilogue(sums, first column).
template <class Epilogue>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_column,
          const float* b, std::int64_t b_row, std::int64_t b_column, float* c, std::int64_t ldc, const Epilogue& epilogue) {
  parallel_for(m, [&](std::int64_t i) {
    for (std::int64_t j = 0; j < n; j += lanes) {
      const int valid = static_cast<int>(min_of(lanes, n - j));
      F sums{};
      for (std::int64_t p = 0; p < k; ++p) {
        F row{};
        for (int l = 0; l < valid; ++l) row[l] = b[p * b_row + (j + l) * b_column];
        sums = fma(splat(a[i * a_row + p * a_column]), row, sums);
      }
      store_first(c + i * ldc + j, epilogue(sums, j), valid);
    }
  });
}

}  // namespace gencore::GENCORE_LEVEL
