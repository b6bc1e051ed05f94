// A batch of binary states as bits, in blocks of rows for the threads, and its transpose.
#pragma once

#include "../runtime/scratch.h"
#include "gencore/runtime.h"
#include "parallel.h"
#include "states.h"

namespace gencore::GENCORE_LEVEL {

using runtime::Scratch;

constexpr std::int64_t max_block_rows = 256;  // of one task

// How the rows of a batch are cut into tasks. Rows never meet, so the cut cannot show in the result; it may follow the
// thread count. Blocks are whole multiples of 64 rows where `aligned` asks for it.
struct Blocks {
  std::int64_t rows, block;

  Blocks(std::int64_t n, bool aligned) : rows(n) {
    const std::int64_t threads = num_threads();
    const std::int64_t tasks = round_up(ceil_div(max_of(n, 1), max_block_rows), threads);
    block = max_of(ceil_div(n, tasks), 1);
    if (aligned) block = round_up(block, 64);
  }
  GENCORE_INLINE std::int64_t count() const { return ceil_div(rows, block); }
  GENCORE_INLINE std::int64_t first(std::int64_t task) const { return task * block; }
  GENCORE_INLINE std::int64_t size(std::int64_t task) const { return min_of(block, rows - first(task)); }
};

// States of a batch as bits, block by block.
struct Bits {
  std::uint64_t* data;
  std::int64_t words, block;

  static std::size_t bytes(const Blocks& blocks, std::int64_t units) {
    return 8 * static_cast<std::size_t>(blocks.count() * blocks.block * word_count(units)) + 64;
  }
  static Bits carve(Scratch& scratch, const Blocks& blocks, std::int64_t units) {
    const std::int64_t words = word_count(units);
    return {scratch.carve<std::uint64_t>(static_cast<std::size_t>(blocks.count() * blocks.block * words)), words,
            blocks.block};
  }
  GENCORE_INLINE std::uint64_t* of(std::int64_t task) const { return data + task * block * words; }
};

// False where some state is neither 0 nor 1.
inline bool pack_all(const ConstStates& states, const Blocks& blocks, const Bits& bits) {
  Flag bad;
  parallel_for(blocks.count(), [&](std::int64_t t) {
    if (!pack_states(states, blocks.first(t), blocks.size(t), bits.of(t))) bad.raise();
  });
  return bad.raised == 0;
}

// [word of the batch][unit] from [word of units][row of the block], whose blocks are aligned. Units are padded to whole words.
inline void transpose_bits(const Bits& bits, const Blocks& blocks, std::int64_t units, std::uint64_t* transposed) {
  const std::int64_t stride = 64 * word_count(units);
  parallel_for(word_count(blocks.rows), [&](std::int64_t group) {
    const std::int64_t task = 64 * group / blocks.block, offset = 64 * group - blocks.first(task);
    const std::int64_t rows = blocks.size(task), count = min_of(64, rows - offset);
    for (std::int64_t w = 0; w < word_count(units); ++w) {
      std::uint64_t square[64] = {};
      for (std::int64_t r = 0; r < count; ++r) square[r] = bits.of(task)[w * rows + offset + r];
      transpose_64(square);
      std::memcpy(transposed + group * stride + 64 * w, square, sizeof square);
    }
  });
}

}  // namespace gencore::GENCORE_LEVEL
