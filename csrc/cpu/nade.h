// NADE on blocks of eight rows: what the likelihood and the sampler share. A row of v is read once for a block, whose
// hidden units stay in the nearest cache; where x_d is 0 they do not change, so a row's logistic functions are taken
// after its ones only. A row's bits do not depend on the rows beside it.
//
// The limit, for a row of D dimensions and K ones: D H multiply-adds, each with a load of its own, and K H logistic
// functions. On 16 lanes at 4.3 GHz, two multiply-adds or loads a cycle: 0.33 ms for 100 rows of 784 x 500 (a load of v
// for eight of h), measured 0.48; and for 110 ones a row 0.45 ms at 5.5 cycles for 16 logistic functions, measured 0.60.
#pragma once

#include "../runtime/reject.h"
#include "../runtime/scratch.h"
#include "gencore/nade.h"
#include "math.h"
#include "parallel.h"

namespace gencore::GENCORE_LEVEL {

using runtime::Scratch;

constexpr int nade_rows = 8;  // of a block: as many sums as a processor needs under way

GENCORE_INLINE std::int64_t nade_blocks(std::int64_t n) { return ceil_div(n, nade_rows); }

// The parameters, with the dimensions in their order.
struct Nade {
  const float *w, *c, *v, *b;
  const std::int64_t* order;
  std::int64_t dims, hidden;

  GENCORE_INLINE explicit Nade(const autoregressive::NadeParameters& op)
      : w(op.w.data),
        c(op.c.data),
        v(op.v.data),
        b(op.b.data),
        order(op.order.given() ? op.order.data : nullptr),
        dims(op.w.shape[0]),
        hidden(op.w.shape[1]) {}
  GENCORE_INLINE std::int64_t at(std::int64_t i) const { return order == nullptr ? i : order[i]; }
};

// bits[d] bit r = states[first + r, d] for up to eight rows; false where a state is neither 0 nor 1.
template <class T>
GENCORE_INLINE bool nade_pack_rows(const T* states, std::int64_t units, std::int64_t rows, std::uint8_t* bits) {
  std::uint8_t bad = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* row = states + r * units;
    for (std::int64_t d = 0; d < units; ++d) {
      const std::uint8_t one = row[d] == 1;
      bad |= static_cast<std::uint8_t>(!one & (row[d] != 0));
      bits[d] = static_cast<std::uint8_t>((r == 0 ? 0 : bits[d]) | (one << r));
    }
  }
  return bad == 0;
}
inline bool nade_pack(const ConstStates& s, std::int64_t first, std::int64_t rows, std::uint8_t* bits) {
  const std::int64_t units = s.shape[1], skip = first * units;
  if (s.type == StateType::u8)
    return nade_pack_rows(static_cast<const std::uint8_t*>(s.data) + skip, units, rows, bits);
  return nade_pack_rows(static_cast<const float*>(s.data) + skip, units, rows, bits);
}

// Sums the lanes of `count` vectors, halves first: where two vectors are left their halves meet in one, which then holds
// parts of `width` lanes of twice as many sums. The sums come in order, each in 8 lanes / 8 or fewer lanes.
template <int Count, int Width>
GENCORE_INLINE void meet_lanes(F (&v)[8]) {
  if constexpr (Width > 0) {
    constexpr std::uint32_t width = Width;
    if constexpr (Count > 1) {
      const U even = iota() / width * 2 * width + iota() % width;  // parts 2 p and 2 p + 1 belong to one sum
      GENCORE_UNROLL
      for (int i = 0; i < Count / 2; ++i) {
        v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], (I)even) +
               __builtin_shuffle(v[2 * i], v[2 * i + 1], (I)(even + width));
      }
      meet_lanes<Count / 2, Width / 2>(v);
    } else {
      v[0] += __builtin_shuffle(v[0], (I)(iota() ^ width));
      meet_lanes<1, Width / 2>(v);
    }
  }
}

// The sums of a block's rows in whole vectors: in the first 8 lanes, or in two vectors of 4.
constexpr int row_parts = lanes < nade_rows ? nade_rows / lanes : 1;
struct RowSums {
  F part[row_parts];

  GENCORE_INLINE void store_to(float* p) const {
    GENCORE_UNROLL
    for (int i = 0; i < row_parts; ++i) store_up_to(p + i * lanes, part[i], nade_rows);
  }
};
GENCORE_INLINE RowSums sum_lanes_of_8(F (&v)[8]) {
  meet_lanes<8, lanes / 2>(v);
  if constexpr (lanes > nade_rows) v[0] = __builtin_shuffle(v[0], (I)(iota() * (lanes / nade_rows) % lanes));
  RowSums sums;
  GENCORE_UNROLL
  for (int i = 0; i < row_parts; ++i) sums.part[i] = v[i];
  return sums;
}

// The hidden units of a block: a and h = logistic(a) of each row, padded with zeros to whole vectors. Vector k of row r is
// at (8 k + r) lanes: the rows of one place lie together.
class NadeHidden {
 public:
  static std::size_t bytes(std::int64_t hidden) { return 8 * size_of(hidden) + 128; }
  NadeHidden(Scratch& scratch, std::int64_t hidden)
      : n_(hidden), a_(scratch.carve<float>(size_of(hidden))), h_(scratch.carve<float>(size_of(hidden))) {}

  // a = c in every row.
  void reset(const float* c) {
    for (std::int64_t j = 0; j < n_; j += lanes) {
      const F a = load_part(c, j);
      F h[1] = {a};
      logistic_from_87_each(h);
      for (int r = 0; r < nade_rows; ++r) {
        store(a_ + nade_rows * j + r * lanes, a);
        store(h_ + nade_rows * j + r * lanes, h[0]);
      }
    }
  }

  // a += w in one row.
  GENCORE_INLINE void add(int r, const float* w) {
    float *a = a_ + r * lanes, *h = h_ + r * lanes;
    std::int64_t j = 0;
    for (; j + 3 * lanes < n_; j += 4 * lanes) add_vectors<4>(a, h, w, j);
    for (; j < n_; j += lanes) add_vectors<1>(a, h, w, j);
  }

  // v . h of every row.
  GENCORE_INLINE RowSums dot(const float* v) const {
    F sums[nade_rows] = {};
    const float* h = h_;
    std::int64_t j = 0;
    for (; j + lanes <= n_; j += lanes, h += nade_rows * lanes) add_products(sums, load(v + j), h);
    if (j < n_) add_products(sums, load_first(v + j, static_cast<int>(n_ - j)), h);
    return sum_lanes_of_8(sums);
  }

 private:
  GENCORE_INLINE static std::size_t size_of(std::int64_t hidden) {
    return static_cast<std::size_t>(nade_rows * round_up(hidden, lanes));
  }
  GENCORE_INLINE F load_part(const float* p, std::int64_t j) const {
    return j + lanes <= n_ ? load(p + j) : load_first(p + j, static_cast<int>(n_ - j));
  }
  // Of the N vectors from j on the last may be a part of one.
  template <int N>
  GENCORE_INLINE void add_vectors(float* a, float* h, const float* w, std::int64_t j) const {
    F x[N];
    GENCORE_UNROLL
    for (int i = 0; i + 1 < N; ++i) x[i] = load(w + j + i * lanes);
    x[N - 1] = load_part(w, j + (N - 1) * lanes);
    a += nade_rows * j;
    h += nade_rows * j;
    GENCORE_UNROLL
    for (int i = 0; i < N; ++i) {
      x[i] += load(a + i * nade_rows * lanes);
      store(a + i * nade_rows * lanes, x[i]);
    }
    logistic_from_87_each(x);
    GENCORE_UNROLL
    for (int i = 0; i < N; ++i) store(h + i * nade_rows * lanes, x[i]);
  }
  GENCORE_INLINE static void add_products(F (&sums)[nade_rows], F v, const float* h) {
    GENCORE_UNROLL
    for (int r = 0; r < nade_rows; ++r) sums[r] = fma(v, load(h + r * lanes), sums[r]);
  }

  std::int64_t n_;
  float *a_, *h_;
};

}  // namespace gencore::GENCORE_LEVEL
