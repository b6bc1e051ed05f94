// The inner loop of every matrix product: a tile of c in registers, one chain of fused multiply-adds over ascending k
// for each of its elements. Between blocks of k the sums rest in c and are loaded again, which is exact, so no blocking
// shows in the bits.
#pragma once

#include "vec.h"

namespace gencore::GENCORE_LEVEL {

// Rows x vectors of sums that the registers hold, with the vectors of b and one broadcast element of a beside them.
#if defined(GENCORE_AVX512)
constexpr int register_rows = 8, register_vectors = 3;
#elif defined(GENCORE_AVX2)
constexpr int register_rows = 4, register_vectors = 3;
#else
constexpr int register_rows = 4, register_vectors = 2;
#endif
constexpr int panel_columns = register_vectors * lanes;

// How `columns` of c (at most panel_columns) lie in vectors. The last vector overlaps the one before it, so that none
// reaches beyond the columns; both compute the same bits. Fewer columns than lanes are masked.
struct Span {
  int columns, vectors;
  GENCORE_INLINE explicit Span(std::int64_t n) : columns(static_cast<int>(n)), vectors((columns + lanes - 1) / lanes) {}
  GENCORE_INLINE bool masked() const { return columns < lanes; }
  GENCORE_INLINE std::int64_t last() const { return masked() ? 0 : columns - lanes; }  // offset of the last vector
};

// A stretch of k.
struct Segment {
  const float *a, *b;
  std::int64_t k;
};

struct TileArguments {
  const Segment* segments;
  std::int64_t count;             // of segments, whose products are summed one after the other
  std::int64_t a_stride;          // between rows, or between columns where rows are adjacent
  std::int64_t b_stride, b_last;  // between rows; offset of the last vector
  float* c;
  std::int64_t c_stride;
  Span span;
  bool fresh;  // sums start at 0, not at c
};

// AdjacentRows: a is stored by columns (a packed or transposed matrix), else by rows.
template <int Rows, int Vectors, bool AdjacentRows, bool Masked>
void multiply_tile(const TileArguments& t) {
  const std::int64_t last = t.span.last();
  const auto load_b = [&](const float* p) { return Masked ? load_first(p, t.span.columns) : load(p); };
  F sum[Rows][Vectors];
  GENCORE_UNROLL
  for (int i = 0; i < Rows; ++i) {
    GENCORE_UNROLL
    for (int j = 0; j < Vectors; ++j) {
      sum[i][j] = t.fresh ? F{} : load_b(t.c + i * t.c_stride + (j + 1 == Vectors ? last : j * lanes));
    }
  }
  const std::int64_t a_row = AdjacentRows ? 1 : t.a_stride, a_step = AdjacentRows ? t.a_stride : 1, b_step = t.b_stride;
  for (std::int64_t s = 0; s < t.count; ++s) {
    const float *a = t.segments[s].a, *b = t.segments[s].b, *b_end = b + t.b_last;
    for (std::int64_t p = t.segments[s].k; p > 0; --p) {
      F row[Vectors];
      GENCORE_UNROLL
      for (int j = 0; j < Vectors; ++j) row[j] = load_b(j + 1 == Vectors ? b_end : b + j * lanes);
      GENCORE_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const F x = splat(a[i * a_row]);
        GENCORE_UNROLL
        for (int j = 0; j < Vectors; ++j) sum[i][j] = fma(x, row[j], sum[i][j]);
      }
      a += a_step;
      b += b_step;
      b_end += b_step;
    }
  }
  GENCORE_UNROLL
  for (int i = 0; i < Rows; ++i) {
    GENCORE_UNROLL
    for (int j = 0; j < Vectors; ++j) {
      float* c = t.c + i * t.c_stride + (j + 1 == Vectors ? last : j * lanes);
      if constexpr (Masked) {
        store_first(c, sum[i][j], t.span.columns);
      } else {
        store(c, sum[i][j]);
      }
    }
  }
}

using TileKernel = void (*)(const TileArguments&);

template <int Rows, bool AdjacentRows>
GENCORE_INLINE TileKernel tile_kernel(const Span& span) {
  if (span.masked()) return multiply_tile<Rows, 1, AdjacentRows, true>;
  if (span.vectors == 1) return multiply_tile<Rows, 1, AdjacentRows, false>;
  if (register_vectors == 2 || span.vectors == 2) return multiply_tile<Rows, 2, AdjacentRows, false>;
  return multiply_tile<Rows, register_vectors, AdjacentRows, false>;
}

template <bool AdjacentRows>
inline TileKernel tile_kernel(std::int64_t rows, const Span& span) {
  switch (rows) {
    case 1: return tile_kernel<1, AdjacentRows>(span);
    case 2: return tile_kernel<2, AdjacentRows>(span);
    case 3: return tile_kernel<3, AdjacentRows>(span);
#if defined(GENCORE_AVX512)
    case 4: return tile_kernel<4, AdjacentRows>(span);
    case 5: return tile_kernel<5, AdjacentRows>(span);
    case 6: return tile_kernel<6, AdjacentRows>(span);
    case 7: return tile_kernel<7, AdjacentRows>(span);
#endif
    default: return tile_kernel<register_rows, AdjacentRows>(span);
  }
}

}  // namespace gencore::GENCORE_LEVEL
