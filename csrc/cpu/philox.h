// Philox4x32-10 on vectors: sixteen consecutive blocks at a time, the unit in which both layouts of random.h are built.
//
// The limit: ten rounds of two 32 x 32 -> 64 products for each block of four words. On 16 lanes that is 37
// multiplications, as many shifts and as many three-way xors for a superblock (the first two rounds share what their
// blocks share). A Zen 5 core issues two, two and four of these a cycle: 28 cycles a superblock, 0.055 ns for each of
// its 128 Bernoulli heads at 4 GHz. One superblock alone takes 53 cycles, since each round waits 7 for the last; two at
// once take 43 each, three 38. Measured on one core: 0.11 ns a variate from probabilities to bits, 0.24 ns from fields,
// logistic included.
#pragma once

#include "gencore/random.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {

constexpr int parts = 16 / lanes;  // vectors that hold one word of sixteen blocks

// word[w][part] lane l = word w of block 16 * superblock + part * lanes + l.
struct Superblock {
  U word[4][parts];
};

// The key, and the counter words that stay.
struct PhiloxRow {
  Key key;
  philox::Stream stream;
};

// N consecutive superblocks under way. A round is a chain of dependent instructions: what else there is to do is best
// done between two of them. Counters are kept in the low halves of 64-bit lanes, even and odd blocks apart, where the
// 32 x 32 -> 64 product leaves them; what is in the high halves never matters.
template <int N>
struct PhiloxRounds {
  static constexpr int n = 2 * parts * N;  // [even of part 0, odd of part 0, ...]
  U64 c0[n], c1[n], c2[n], c3[n];
  std::uint32_t k0, k1;

  GENCORE_INLINE PhiloxRounds(const PhiloxRow& row, std::uint32_t superblock) : k0(row.key.lo), k1(row.key.hi) {
    GENCORE_UNROLL
    for (int i = 0; i < N; ++i) start(i, row.stream, superblock + static_cast<std::uint32_t>(i));
  }

  // Superblocks of several rows; the other counter words are those of `stream`.
  GENCORE_INLINE PhiloxRounds(Key key, const philox::Stream& stream, const std::uint32_t (&rows)[N],
                              const std::uint32_t (&superblocks)[N])
      : k0(key.lo), k1(key.hi) {
    GENCORE_UNROLL
    for (int i = 0; i < N; ++i) start(i, {rows[i], stream.step, stream.tag}, superblocks[i]);
  }

  GENCORE_INLINE void start(int which, const philox::Stream& stream, std::uint32_t superblock) {
    GENCORE_UNROLL
    for (int part = 0; part < parts; ++part) {
      const U64 blocks = (U64)(iota() + (16 * superblock + static_cast<std::uint32_t>(part * lanes)));
      const int i = 2 * (which * parts + part);
      c0[i] = blocks;
      c0[i + 1] = blocks >> 32;
      c1[i] = c1[i + 1] = U64{} + stream.row;
      c2[i] = c2[i + 1] = U64{} + stream.step;
      c3[i] = c3[i + 1] = U64{} + stream.tag;
    }
  }

  // One of the first nine.
  GENCORE_INLINE void round() {
    const U64 m0 = U64{} + philox::multiplier0, m1 = U64{} + philox::multiplier1, key0 = U64{} + k0, key1 = U64{} + k1;
    GENCORE_UNROLL
    for (int i = 0; i < n; ++i) {
      const U64 p0 = mul_even(c0[i], m0), p1 = mul_even(c2[i], m1);
      c0[i] = xor3(p1 >> 32, c1[i], key0);
      c2[i] = xor3(p0 >> 32, c3[i], key1);
      c1[i] = p1;
      c3[i] = p0;
    }
    k0 += philox::weyl0;
    k1 += philox::weyl1;
  }

  // The tenth, which puts the blocks back in line.
  GENCORE_INLINE void finish(Superblock (&out)[N]) {
    const U64 m0 = U64{} + philox::multiplier0, m1 = U64{} + philox::multiplier1;
    GENCORE_UNROLL
    for (int i = 0; i < parts * N; ++i) {
      const int even = 2 * i, odd = 2 * i + 1;
      const U64 p0_even = mul_even(c0[even], m0), p0_odd = mul_even(c0[odd], m0);
      const U64 p1_even = mul_even(c2[even], m1), p1_odd = mul_even(c2[odd], m1);
      Superblock& to = out[i / parts];
      to.word[0][i % parts] = xor3(merge_high(p1_even, p1_odd), merge_low(c1[even], c1[odd]), splat_u(k0));
      to.word[1][i % parts] = merge_low(p1_even, p1_odd);
      to.word[2][i % parts] = xor3(merge_high(p0_even, p0_odd), merge_low(c3[even], c3[odd]), splat_u(k1));
      to.word[3][i % parts] = merge_low(p0_even, p0_odd);
    }
  }
};

// How many superblocks a loop over variates alone computes at once: as many as the registers hold.
constexpr int superblocks_at_once = lanes == 16 ? 2 : 1;

template <int N>
GENCORE_INLINE void run_rounds(PhiloxRounds<N> rounds, Superblock (&out)[N]) {
  GENCORE_UNROLL
  for (int i = 0; i < 9; ++i) rounds.round();
  rounds.finish(out);
}

template <int N>
GENCORE_INLINE void philox_superblocks(const PhiloxRow& row, std::uint32_t first, Superblock (&out)[N]) {
  run_rounds(PhiloxRounds<N>(row, first), out);
}

GENCORE_INLINE F to_uniform(U word) { return (to_float((I)(word >> 9)) + 0.5f) * 0x1p-23f; }

}  // namespace gencore::GENCORE_LEVEL
