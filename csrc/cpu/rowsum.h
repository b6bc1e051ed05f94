// Sums of the weight rows that a binary state selects: x = s w for s of 0/1, without a multiplication and without touching
// the rows of units that are off. Rows are added in ascending order to a sum that starts at 0, so the bits are those of
// the dense product (gemm.h). At any density this costs less than the dense product, whose every row is touched.
//
// Weights are packed into tiles of `tile_columns` columns; within a tile the 64 rows that one word of state selects are
// contiguous and fit in L1. The loops go tile, word, state row: the 64 x tile block stays in L1 while all state rows of
// the block use it, and their sums (a group of 128 columns) stay in L2.
#pragma once

#include "states.h"
#include "transpose.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {

constexpr int tile_vectors = 8;
constexpr std::int64_t tile_columns = tile_vectors * lanes;
constexpr std::int64_t group_columns = 128;  // columns handed to the consumer at a time: one superblock of variates

// A matrix (rows, columns) packed for row sums.
struct Panels {
  float* data;
  std::int64_t rows, columns;

  static GENCORE_INLINE std::int64_t padded_columns(std::int64_t columns) { return round_up(columns, lanes); }
  static GENCORE_INLINE std::int64_t float_count(std::int64_t rows, std::int64_t columns) {
    return round_up(rows, 64) * padded_columns(columns);
  }
  GENCORE_INLINE std::int64_t tiles() const { return ceil_div(columns, tile_columns); }
  // Vectors in a row of this tile: the last tile may be narrower.
  GENCORE_INLINE int vectors(std::int64_t tile) const {
    return static_cast<int>(min_of(tile_vectors, ceil_div(columns - tile * tile_columns, lanes)));
  }
  GENCORE_INLINE float* tile(std::int64_t t) const { return data + t * tile_columns * round_up(rows, 64); }
  GENCORE_INLINE float* at(std::int64_t t, std::int64_t row) const { return tile(t) + row * vectors(t) * lanes; }
};

// Packs tile t of m. Returns false where an element is not finite.
inline bool pack_tile(const Panels& p, std::int64_t t, const float* m) {
  const std::int64_t first = t * tile_columns;
  const std::int64_t width = p.vectors(t) * lanes, valid = min_of(width, p.columns - first);
  F probe{};
  for (std::int64_t r = 0; r < p.rows; ++r) {
    const float* in = m + r * p.columns + first;
    float* out = p.at(t, r);
    for (std::int64_t j = 0; j < width; j += lanes) {
      const F v = j + lanes <= valid ? load(in + j)
                                     : (j < valid ? load_first(in + j, static_cast<int>(valid - j)) : F{});
      probe += v - v;
      store(out + j, v);
    }
  }
  return bits(less_equal(abs(probe), splat(0.0f))) == (1u << lanes) - 1;
}

// The same for the transpose of m, which is (columns, rows) of p.
inline bool pack_tile_transposed(const Panels& p, std::int64_t t, const float* m) {
  const std::int64_t first = t * tile_columns;
  const std::int64_t width = p.vectors(t) * lanes, valid = min_of(width, p.columns - first);
  F probe{};
  float rest = 0;
  for (std::int64_t j = 0; j < width; j += lanes) {
    const float* in = m + (first + j) * p.rows;
    std::int64_t r = 0;
    for (; j + lanes <= valid && r + load_depth <= p.rows; r += load_depth) {
      F v[load_depth];
      load_columns(in + r, p.rows, v);
      GENCORE_UNROLL
      for (int i = 0; i < load_depth; ++i) {
        probe += v[i] - v[i];
        store(p.at(t, r + i) + j, v[i]);
      }
    }
    for (; r < p.rows; ++r) {
      for (std::int64_t l = 0; l < lanes; ++l) {
        const float v = j + l < valid ? in[l * p.rows + r] : 0.0f;
        rest += v - v;
        p.at(t, r)[j + l] = v;
      }
    }
  }
  return rest == 0 && bits(less_equal(abs(probe), splat(0.0f))) == (1u << lanes) - 1;
}

// Towards L2: the block of 64 rows that comes next lies behind this one. With few state rows it is needed soon, and after
// packing by several threads half of it is in another core's cache.
template <int Vectors>
GENCORE_INLINE void prefetch_row(const float* row) {
  GENCORE_UNROLL
  for (int j = 0; j < Vectors; j += 16 / lanes) __builtin_prefetch(row + j * lanes, 0, 2);
}

// Adds the panel rows that words[row] selects to x[row], for `rows` state rows; x starts at 0 if `fresh`. With Stretches, a
// word's rows are summed apart first, and then added or subtracted.
template <int Vectors, bool Stretches>
GENCORE_INLINE void add_selected(const float* panel, const std::uint64_t* words, std::int64_t rows, float* x,
                                 std::int64_t x_stride, bool fresh, bool subtract) {
  for (std::int64_t r = 0; r < rows; ++r, x += x_stride) {
    std::uint64_t word = words[r];
    if (r < 64) prefetch_row<Vectors>(panel + (64 + r) * (Vectors * lanes));
    if (word == 0 && !fresh) continue;
    F sum[Vectors];
    GENCORE_UNROLL
    for (int j = 0; j < Vectors; ++j) sum[j] = Stretches || fresh ? F{} : load(x + j * lanes);
    while (word != 0) {
      const float* p = panel + static_cast<std::int64_t>(__builtin_ctzll(word)) * (Vectors * lanes);
      word &= word - 1;
      GENCORE_UNROLL
      for (int j = 0; j < Vectors; ++j) sum[j] += load(p + j * lanes);
    }
    GENCORE_UNROLL
    for (int j = 0; j < Vectors; ++j) {
      if (Stretches) {
        const F before = fresh ? F{} : load(x + j * lanes);
        sum[j] = subtract ? before - sum[j] : before + sum[j];
      }
      store(x + j * lanes, sum[j]);
    }
  }
}

template <bool Stretches>
inline void add_selected(int vectors, const float* panel, const std::uint64_t* words, std::int64_t rows, float* x,
                         std::int64_t x_stride, bool fresh, bool subtract) {
  switch (vectors) {
    case 1: return add_selected<1, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
    case 2: return add_selected<2, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
    case 3: return add_selected<3, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
    case 4: return add_selected<4, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
    case 5: return add_selected<5, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
    case 6: return add_selected<6, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
    case 7: return add_selected<7, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
    default: return add_selected<8, Stretches>(panel, words, rows, x, x_stride, fresh, subtract);
  }
}

// One term of a sum of products: states times panels.
struct Term {
  const Panels* panels;
  const std::uint64_t* bits;  // [word][bits_stride], from the first state row of the block
  std::int64_t bits_stride;
  bool subtract;  // only where sums go in stretches
};

// x = sum over terms of (+/-) bits * panels, a group of 128 columns at a time: consume(row, first_column, x) sees each
// state row's sums; x holds `rows` * 128 floats. Columns beyond the matrix hold zeros up to a whole vector. Sums over a batch
// go in stretches of 64, so that rounding does not pile up: of n rows, 64 + n / 64 roundings in a chain instead of n.
template <bool Stretches, class Consume>
GENCORE_INLINE void row_sums(const Term* terms, int term_count, std::int64_t rows, float* x, const Consume& consume) {
  const std::int64_t columns = terms[0].panels->columns;
  constexpr std::int64_t tiles_per_group = group_columns / tile_columns;
  for (std::int64_t group = 0; group * group_columns < columns; ++group) {
    for (std::int64_t t = group * tiles_per_group; t < (group + 1) * tiles_per_group && t * tile_columns < columns;
         ++t) {
      float* const part = x + (t - group * tiles_per_group) * tile_columns;
      bool fresh = true;
      for (int i = 0; i < term_count; ++i) {
        const Term& term = terms[i];
        for (std::int64_t w = 0; 64 * w < term.panels->rows; ++w, fresh = false) {
          const float* panel = term.panels->at(t, 64 * w);
          const std::uint64_t* words = term.bits + w * term.bits_stride;
          add_selected<Stretches>(term.panels->vectors(t), panel, words, rows, part, group_columns, fresh,
                                  term.subtract);
        }
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) consume(r, group * group_columns, x + r * group_columns);
  }
}

template <class Consume>
GENCORE_INLINE void row_sums(const Panels& panels, const std::uint64_t* bits, std::int64_t rows, float* x,
                             const Consume& consume) {
  const Term term{&panels, bits, rows, false};
  row_sums<false>(&term, 1, rows, x, consume);
}

}  // namespace gencore::GENCORE_LEVEL
