// c = epilogue(op(a) op(b)) where a is bytes of 0 and 1: sums of the rows of b that the ones of a select (rowsum.h). The
// bits are those of gemm.h on the same numbers as floats, where b is finite.
//
// The limit is two loads a cycle of what is selected: at a share p of ones, p times what the dense product takes at its
// own limit, besides packing b. 128 x 784 x 500 at p = 0.13 on one core: 0.06 ms of loads and 0.04 of packing.
#pragma once

#include "batch_bits.h"
#include "rowsum.h"

namespace gencore::GENCORE_LEVEL {

// False, and c is unfinished, where a holds something else. b is (k, n), or (n, k) where it is transposed. epilogue(sums,
// first column) -> what is stored, for a vector of sums of one row.
template <class Epilogue>
bool binary_product(const ConstStates& a, bool transpose_a, const float* b, bool transpose_b, const Matrix<float>& c,
                    const Epilogue& epilogue) {
  const std::int64_t m = c.shape[0], n = c.shape[1], k = a.shape[transpose_a ? 0 : 1];
  if (m == 0 || n == 0) return true;
  const Blocks stored(a.shape[0], transpose_a), blocks(m, false);
  const std::int64_t words = word_count(k), stride = 64 * word_count(m);  // of the transpose
  const auto transposed_size = static_cast<std::size_t>(transpose_a ? words * stride : 0);
  Scratch scratch(Bits::bytes(stored, a.shape[1]) + 8 * transposed_size +
                  4 * static_cast<std::size_t>(Panels::float_count(k, n)) + 256);
  const Bits bits = Bits::carve(scratch, stored, a.shape[1]);
  if (!pack_all(a, stored, bits)) return false;
  std::uint64_t* transposed = scratch.carve<std::uint64_t>(transposed_size);
  if (transpose_a) transpose_bits(bits, stored, m, transposed);
  const Panels panels{scratch.carve<float>(static_cast<std::size_t>(Panels::float_count(k, n))), k, n};
  parallel_for(panels.tiles(),
               [&](std::int64_t t) { transpose_b ? pack_tile_transposed(panels, t, b) : pack_tile(panels, t, b); });
  parallel_for(blocks.count(), [&](std::int64_t task) {
    const std::int64_t rows = blocks.size(task), first = blocks.first(task);
    const auto size = static_cast<std::size_t>(rows * group_columns);
    Scratch local(4 * size);
    float* sums = local.carve<float>(size);
    if (k == 0) std::memset(sums, 0, 4 * size);
    const Term term = transpose_a ? Term{&panels, transposed + first, stride, false}
                                  : Term{&panels, bits.of(task), rows, false};
    row_sums<false>(&term, 1, rows, sums, [&](std::int64_t r, std::int64_t column, const float* x) {
      float* out = c.row(first + r) + column;
      const std::int64_t valid = min_of(group_columns, n - column);
      for (std::int64_t j = 0; j < valid; j += lanes) {
        store_up_to(out + j, epilogue(load(x + j), column + j), valid - j);
      }
    });
  });
  return true;
}

}  // namespace gencore::GENCORE_LEVEL
