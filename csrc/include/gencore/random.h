// Counter-based randomness: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A variate is addressed by (key; domain, step, row, unit); it is the same bits on every ISA level, thread count,
// tile shape, batch split and device.
#pragma once

#include <cstdint>

#include "gencore/view.h"

namespace gencore {

constexpr std::int64_t max_step = (std::int64_t{1} << 56) - 1;  // steps are 56-bit, rows 32-bit numbers

struct Key {
  std::uint32_t lo = 0, hi = 0;
};

GENCORE_INLINE Key make_key(std::uint64_t k) {
  return {static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(k >> 32)};
}

namespace philox {

struct Block {
  std::uint32_t word[4];
};

// Separates the streams that one key serves. Values are part of the format: never renumber.
enum Domain : std::uint32_t {
  uniform = 0,
  normal = 1,
  exponential = 2,
  categorical = 3,
  bernoulli_head = 4,
  bernoulli_tail = 5,
  hidden_head = 8,
  hidden_tail = 9,
  visible_head = 10,
  visible_tail = 11,
  ais_start = 12,  // and 13: its tail
  ais_start_tail = 13,
  pseudo_likelihood = 14,
  logistic = 16,
  laplace = 17,
  gumbel = 18,
  relaxed_bernoulli = 19,
  gumbel_softmax = 20,
  nade_head = 21,
  nade_tail = 22,
  pixel_head = 23,
  pixel_tail = 24,
  generator_child = 254,  // gencore.Generator: the key is its seed
  generator_key = 255,
};

constexpr std::uint32_t multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
constexpr std::uint32_t weyl0 = 0x9E3779B9u, weyl1 = 0xBB67AE85u;

GENCORE_INLINE Block block(Key key, std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{multiplier0} * c0, p1 = std::uint64_t{multiplier1} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ key.lo;
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ key.hi;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    key.lo += weyl0;
    key.hi += weyl1;
  }
  return {{c0, c1, c2, c3}};
}

// Where a row of variates lives: counter words 1 to 3. Word 0 counts blocks along the units.
struct Stream {
  std::uint32_t row, step, tag;
};

GENCORE_INLINE Stream stream(Domain domain, std::uint64_t step, std::uint64_t row) {
  return {static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(step),
          (static_cast<std::uint32_t>(domain) << 24) | static_cast<std::uint32_t>((step >> 32) & 0xFFFFFFu)};
}

// Word layout: 64 units share 16 blocks, so that vectors of 4, 8 or 16 lanes fill consecutive units without a shuffle.
GENCORE_INLINE std::uint32_t word_at(Key key, Stream s, std::int64_t unit) {
  const std::int64_t t = unit % 64;
  return block(key, static_cast<std::uint32_t>(16 * (unit / 64) + t % 16), s.row, s.step, s.tag).word[t / 16];
}

// Head layout: 16 bits a unit, 128 units share 16 blocks.
GENCORE_INLINE std::uint32_t half_at(Key key, Stream s, std::int64_t unit) {
  const std::int64_t t = unit % 128;
  const std::uint32_t w =
      block(key, static_cast<std::uint32_t>(16 * (unit / 128) + t % 16), s.row, s.step, s.tag).word[(t % 64) / 16];
  return t < 64 ? (w & 0xFFFFu) : (w >> 16);
}

// Flat layout, of all continuous noise: unit u of row r, of rows of `columns` units, is element e = r columns + u, and has
// the word of unit e mod 2^30 of row e / 2^30. Short rows share superblocks instead of wasting most of one each. It
// depends on `columns`, at most 2^30.
constexpr std::int64_t flat_units = std::int64_t{1} << 30;
GENCORE_INLINE std::uint32_t flat_word_at(Key key, Domain domain, std::uint64_t step, std::int64_t element) {
  return word_at(key, stream(domain, step, static_cast<std::uint64_t>(element / flat_units)), element % flat_units);
}

// (0, 1), both ends open, exact in float32.
GENCORE_INLINE float to_uniform(std::uint32_t word) { return (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f; }

}  // namespace philox
}  // namespace gencore
