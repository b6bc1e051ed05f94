// Loops over the elements of tiles: contiguous stretches that hold whole rows, or a part of one. Sums over rows are
// float64.
#pragma once

#include "parallel.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {

typedef double F64 __attribute__((vector_size(4 * GENCORE_LANES), may_alias));  // lanes / 2 of them
typedef float Half __attribute__((vector_size(2 * GENCORE_LANES), may_alias));
typedef std::int64_t I64 __attribute__((vector_size(4 * GENCORE_LANES), may_alias));

// A float64 sum of float32 vectors.
struct WideSum {
  F64 low{}, high{};

  GENCORE_INLINE void add(F v) {
    Half part[2];
    std::memcpy(part, &v, sizeof v);
    low += __builtin_convertvector(part[0], F64);
    high += __builtin_convertvector(part[1], F64);
  }
  GENCORE_INLINE double value() const {
    F64 s = low + high;
    I64 lane;
    for (int i = 0; i < lanes / 2; ++i) lane[i] = i;
    GENCORE_UNROLL
    for (int step = lanes / 4; step > 0; step /= 2) s += __builtin_shuffle(s, lane ^ step);
    return s[0];
  }
};

// Combines the lanes of each vector; the result is in every lane.
template <int N, class Combine>
GENCORE_INLINE void reduce_lanes(F (&v)[N], const Combine& combine) {
  GENCORE_UNROLL
  for (int step = lanes / 2; step > 0; step /= 2) {
    GENCORE_UNROLL
    for (int i = 0; i < N; ++i) v[i] = combine(v[i], __builtin_shuffle(v[i], (I)iota() ^ step));
  }
}
GENCORE_INLINE F sum_lanes(F v) {
  F all[1] = {v};
  reduce_lanes(all, [](F a, F b) { return a + b; });
  return all[0];
}
GENCORE_INLINE F max_lanes(F v) {
  F all[1] = {v};
  reduce_lanes(all, [](F a, F b) { return max(a, b); });
  return all[0];
}

constexpr std::int64_t task_units = 16384;  // elements of one task: some microseconds of work

// All lanes of a vector in memory, or the first few.
struct WholeVector {
  GENCORE_INLINE F load(const float* p) const { return GENCORE_LEVEL::load(p); }
  GENCORE_INLINE void store(float* p, F v) const { GENCORE_LEVEL::store(p, v); }
};
struct PartVector {
  int n;
  GENCORE_INLINE F load(const float* p) const { return load_first(p, n); }
  GENCORE_INLINE void store(float* p, F v) const { store_first(p, v, n); }
};

// body(i, at) for i = 0, lanes, ... below n; at.load and at.store reach no further than n.
template <class Body>
GENCORE_INLINE void for_each_vector(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, WholeVector{});
  if (i < n) body(i, PartVector{static_cast<int>(n - i)});
}

// Rows row .. row + rows - 1, whole; or units first .. first + units - 1 of one row.
struct Tile {
  std::int64_t row, rows, first, units;
  GENCORE_INLINE std::int64_t size() const { return rows * units; }
};

// Tiles of at most `most` elements, in order, that cover rows begin .. end - 1.
template <class Body>
GENCORE_INLINE void for_each_tile(std::int64_t begin, std::int64_t end, std::int64_t units, std::int64_t most,
                                  const Body& body) {
  const std::int64_t rows = max_of(most / max_of(units, 1), 1);
  for (std::int64_t row = begin; row < end; row += rows) {
    if (units <= most) {
      body(Tile{row, min_of(rows, end - row), 0, units});
      continue;
    }
    for (std::int64_t first = 0; first < units; first += most) {
      body(Tile{row, 1, first, min_of(most, units - first)});
    }
  }
}

// body(begin, end) for the rows of each task, in parallel; a task has `task_units` elements where rows are shorter.
template <class Body>
void for_each_row_task(std::int64_t rows, std::int64_t units, const Body& body) {
  const std::int64_t block = max_of(task_units / max_of(units, 1), 1);
  parallel_for(ceil_div(rows, block), [&](std::int64_t task) { body(task * block, min_of(rows, (task + 1) * block)); });
}

// Sums the terms of each row of a tile; store(row, sum) when a row is complete. `carry` takes the sum of a part of a
// row to the next tile. Terms may be read up to a vector beyond their end.
template <class Store>
GENCORE_INLINE void sum_rows(const Tile& tile, std::int64_t columns, const float* terms, double& carry,
                             const Store& store) {
  const std::int64_t whole = tile.units / lanes * lanes;
  const int rest = static_cast<int>(tile.units - whole);
  for (std::int64_t r = 0; r < tile.rows; ++r, terms += tile.units) {
    WideSum total;
    for (std::int64_t i = 0; i < whole; i += lanes) total.add(load(terms + i));
    if (rest > 0) total.add(load_first(terms + whole, rest));
    const double sum = tile.first > 0 ? carry + total.value() : total.value();
    if (tile.first + tile.units < columns) {
      carry = sum;
    } else {
      store(tile.row + r, sum);
    }
  }
}

// out = value[row] for each element of a tile.
GENCORE_INLINE void spread_rows(const Tile& tile, const float* value, float* out) {
  for (std::int64_t r = 0; r < tile.rows; ++r, out += tile.units) {
    const F v = splat(value[tile.row + r]);
    for (std::int64_t i = 0; i < tile.units; i += lanes) store(out + i, v);
  }
}

}  // namespace gencore::GENCORE_LEVEL
