// Philox4x32-10 on vectors: sixteen consecutive blocks at a time, the unit in which both layouts of random.h are built.
#pragma once

#include "gencore/random.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {

constexpr int parts = 16 / lanes;  // vectors that hold one word of sixteen blocks

// word[w][part] lane l = word w of block 16 * superblock + part * lanes + l.
struct Superblock {
  U word[4][parts];
};

// The ten keys of the rounds, and the counter words that stay.
struct PhiloxRow {
  Key key;
  philox::Stream stream;
};

// Counters are kept in the low halves of 64-bit lanes, even and odd blocks apart, where the 32 x 32 -> 64 product
// leaves them; what is in the high halves never matters.
GENCORE_INLINE void philox_superblock(const PhiloxRow& row, std::uint32_t superblock, Superblock& out) {
  constexpr int n = 2 * parts;  // [even of part 0, odd of part 0, ...]
  U64 c0[n], c1[n], c2[n], c3[n];
  const U64 m0 = U64{} + philox::multiplier0, m1 = U64{} + philox::multiplier1;
  GENCORE_UNROLL
  for (int i = 0; i < parts; ++i) {
    const U index = iota() + (16 * superblock + static_cast<std::uint32_t>(i * lanes));
    c0[2 * i] = (U64)index;
    c0[2 * i + 1] = (U64)index >> 32;
    for (int odd = 0; odd < 2; ++odd) {
      c1[2 * i + odd] = U64{} + row.stream.row;
      c2[2 * i + odd] = U64{} + row.stream.step;
      c3[2 * i + odd] = U64{} + row.stream.tag;
    }
  }
  std::uint32_t k0 = row.key.lo, k1 = row.key.hi;
  GENCORE_UNROLL
  for (int round = 0; round < 10; ++round) {
    const U64 key0 = U64{} + k0, key1 = U64{} + k1;
    GENCORE_UNROLL
    for (int i = 0; i < n; ++i) {
      const U64 p0 = mul_even(c0[i], m0), p1 = mul_even(c2[i], m1);
      c0[i] = (p1 >> 32) ^ c1[i] ^ key0;
      c2[i] = (p0 >> 32) ^ c3[i] ^ key1;
      c1[i] = p1;
      c3[i] = p0;
    }
    k0 += philox::weyl0;
    k1 += philox::weyl1;
  }
  GENCORE_UNROLL
  for (int i = 0; i < parts; ++i) {
    const U64 low = U64{} + 0xFFFFFFFFu;
    out.word[0][i] = (U)((c0[2 * i] & low) | (c0[2 * i + 1] << 32));
    out.word[1][i] = (U)((c1[2 * i] & low) | (c1[2 * i + 1] << 32));
    out.word[2][i] = (U)((c2[2 * i] & low) | (c2[2 * i + 1] << 32));
    out.word[3][i] = (U)((c3[2 * i] & low) | (c3[2 * i + 1] << 32));
  }
}

GENCORE_INLINE F to_uniform(U word) { return (to_float((I)(word >> 9)) + 0.5f) * 0x1p-23f; }

}  // namespace gencore::GENCORE_LEVEL
