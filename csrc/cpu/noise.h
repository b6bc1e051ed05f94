// Standard noise from Philox words, and tiles of it: the noise of some rows, or of a part of one, dense in a buffer that
// stays in the first-level cache. What a kernel does with it is then a plain loop over elements.
#pragma once

#include "math.h"
#include "philox.h"

namespace gencore::GENCORE_LEVEL {

constexpr int superblock_vectors = 4 * parts;

constexpr int at_side = 4;  // vectors that go through a function side by side

// Each kind turns uniforms into variates, in place; normal noise takes two. Uniforms, their complements, which are exact,
// and their logarithms are normal numbers other than 0.
struct UniformNoise {
  static GENCORE_INLINE void of(F (&)[at_side]) {}
};
struct ExponentialNoise {
  static GENCORE_INLINE void of(F (&u)[at_side]) {
    log_normal_each(u);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) u[i] = -u[i];
  }
};
struct GumbelNoise {};  // two exponentials on end
struct LogisticNoise {
  static GENCORE_INLINE void of(F (&u)[at_side]) {
    F rest[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) rest[i] = 1.0f - u[i];
    log_normal_each(u);
    log_normal_each(rest);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) u[i] -= rest[i];
  }
};
struct LaplaceNoise {
  static GENCORE_INLINE void of(F (&u)[at_side]) {
    F tail[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) tail[i] = 2.0f * min(u[i], 1.0f - u[i]);
    log_normal_each(tail);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) u[i] = select(less(u[i], splat(0.5f)), tail[i], -tail[i]);
  }
};
struct NormalNoise {};

// Box and Muller: radii from uniforms, angles from others.
GENCORE_INLINE void box_muller(const U (&radius_words)[at_side], const U (&angle_words)[at_side], F (&cosine)[at_side],
                               F (&sine)[at_side]) {
  F radius[at_side], turn[at_side];
  GENCORE_UNROLL
  for (int i = 0; i < at_side; ++i) {
    radius[i] = to_uniform(radius_words[i]);
    turn[i] = to_uniform(angle_words[i]);
  }
  log_normal_each(radius);
  cos_sin_turn_each(turn, cosine, sine);
  GENCORE_UNROLL
  for (int i = 0; i < at_side; ++i) {
    radius[i] = sqrt(-2.0f * radius[i]);
    cosine[i] = radius[i] * cosine[i];
    sine[i] = radius[i] * sine[i];
  }
}

// --- tiles ---------------------------------------------------------------------------------------------------------

constexpr std::int64_t tile_units = 512;
constexpr std::int64_t tile_margin = 64;  // rubbish may be written so far beyond either end of a tile

// Floats of a tile, with its margins.
struct TileBuffer {
  alignas(64) float memory[tile_units + 2 * tile_margin];
  GENCORE_INLINE float* data() { return memory + tile_margin; }
};

// Where the noise of an op is found.
struct NoiseSource {
  Key key;
  philox::Stream stream;  // its row is that of row 0
};

constexpr int vectors_at_once = superblocks_at_once * superblock_vectors;

// Runs Philox over `count` superblocks, superblock q being that of address(q, row, block), and hands them over in order:
// take(q, n, words) gets the words of the n superblocks from q on, and rubbish after them.
template <class Address, class Take>
GENCORE_INLINE void for_superblocks(const NoiseSource& source, std::int64_t count, const Address& address,
                                    const Take& take) {
  for (std::int64_t q = 0; q < count; q += superblocks_at_once) {
    std::uint32_t row[superblocks_at_once], block[superblocks_at_once];
    GENCORE_UNROLL
    for (int i = 0; i < superblocks_at_once; ++i) address(min_of(q + i, count - 1), row[i], block[i]);
    Superblock random[superblocks_at_once];
    run_rounds(PhiloxRounds<superblocks_at_once>(source.key, source.stream, row, block), random);
    U words[vectors_at_once];
    GENCORE_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      const int in = v % superblock_vectors;
      words[v] = random[v / superblock_vectors].word[in / parts][in % parts];
    }
    take(q, static_cast<int>(min_of(superblocks_at_once, count - q)), words);
  }
}

// Superblocks of consecutive rows, or of consecutive units of one row.
struct RowAddress {
  std::uint32_t row, block;
  std::int64_t blocks;  // a row
  GENCORE_INLINE void operator()(std::int64_t q, std::uint32_t& r, std::uint32_t& b) const {
    const auto n = static_cast<std::uint32_t>(blocks), i = static_cast<std::uint32_t>(q);
    r = row + (n == 1 ? i : i / n);
    b = block + (n == 1 ? 0 : i % n);
  }
};

// Four vectors at a time, in place; up to three vectors of rubbish beyond n are changed, too.
template <class Change>
GENCORE_INLINE void change_tile(std::int64_t n, float* tile, const Change& change) {
  for (std::int64_t first = 0; first < n; first += at_side * lanes) {
    F v[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) v[i] = load(tile + first + i * lanes);
    change(v);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) store(tile + first + i * lanes, v[i]);
  }
}

// Words become noise in a second pass: in one, the constants of both fill more registers than there are. A third for the
// second logarithm: a chain of two is longer than what a processor looks ahead.
template <class Noise>
GENCORE_INLINE void words_to_noise(Noise, std::int64_t n, float* words) {
  change_tile(n, words, [](F(&v)[at_side]) {
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) v[i] = to_uniform((U)v[i]);
    Noise::of(v);
  });
}
GENCORE_INLINE void words_to_noise(GumbelNoise, std::int64_t n, float* words) {
  words_to_noise(ExponentialNoise{}, n, words);
  change_tile(n, words, [](F(&v)[at_side]) { ExponentialNoise::of(v); });
}

// Units first .. first + units - 1 of `rows` rows from `row` on, one row after the other in out; first is a multiple of
// 64. A vector that overruns the end of its row is overwritten by the next row.
template <class Noise>
GENCORE_INLINE void fill_tile(Noise noise, const NoiseSource& source, std::int64_t row, std::int64_t rows,
                              std::int64_t first, std::int64_t units, float* out) {
  const std::int64_t blocks = ceil_div(units, 64);
  const RowAddress address{source.stream.row + static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(first / 64),
                           blocks};
  float* to = out;
  std::int64_t unit = 0;
  for_superblocks(source, rows * blocks, address, [&](std::int64_t, int n, const U(&words)[vectors_at_once]) {
    GENCORE_UNROLL
    for (int i = 0; i < superblocks_at_once; ++i) {
      if (i >= n) break;
      const std::int64_t rest = units - unit;
      GENCORE_UNROLL
      for (int v = 0; v < superblock_vectors; ++v) {
        if (v * lanes < rest) store(to + v * lanes, (F)words[i * superblock_vectors + v]);
      }
      to += min_of(rest, 64);
      unit = rest <= 64 ? 0 : unit + 64;
    }
  });
  words_to_noise(noise, rows * units, out);
}

// Radius and angle words of the pairs of a tile: 32 of each superblock, or, where rows are shorter, as many as a row has
// units. There are no more pairs than units, but for the last superblock's.
struct PairBuffer {
  TileBuffer radius, angle;

  // Pair `first` and those after it.
  GENCORE_INLINE void box_muller_at(std::int64_t first, F (&cosine)[at_side], F (&sine)[at_side]) {
    U radii[at_side], angles[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      radii[i] = (U)load(radius.data() + first + i * lanes);
      angles[i] = (U)load(angle.data() + first + i * lanes);
    }
    box_muller(radii, angles, cosine, sine);
  }
};

GENCORE_INLINE void fill_pairs(const NoiseSource& source, std::int64_t count, const RowAddress& address,
                               std::int64_t width, PairBuffer& pairs) {
  constexpr int half = superblock_vectors / 2;
  for_superblocks(source, count, address, [&](std::int64_t q, int n, const U(&words)[vectors_at_once]) {
    GENCORE_UNROLL
    for (int i = 0; i < superblocks_at_once; ++i) {
      if (i >= n) break;
      GENCORE_UNROLL
      for (int v = 0; v < half; ++v) {
        if (v * lanes >= width) break;
        const U* word = words + i * superblock_vectors + v;
        store(pairs.radius.data() + (q + i) * width + v * lanes, (F)word[0]);
        store(pairs.angle.data() + (q + i) * width + v * lanes, (F)word[half]);
      }
    }
  });
}

// The first half of a superblock's units pairs with the second; of rows of at most 32, all that the sine would give is
// beyond their end.
GENCORE_INLINE void fill_tile(NormalNoise, const NoiseSource& source, std::int64_t row, std::int64_t rows,
                              std::int64_t first, std::int64_t units, float* out) {
  PairBuffer pairs;
  const std::int64_t blocks = ceil_div(units, 64), count = rows * blocks, width = min_of(units, 32);
  const RowAddress address{source.stream.row + static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(first / 64),
                           blocks};
  fill_pairs(source, count, address, width, pairs);
  std::int64_t unit = 0;
  for (std::int64_t pair = 0; pair < count * width; pair += at_side * lanes) {
    F cosine[at_side], sine[at_side];
    pairs.box_muller_at(pair, cosine, sine);
    if (units <= 32) {
      GENCORE_UNROLL
      for (int i = 0; i < at_side; ++i) store(out + pair + i * lanes, cosine[i]);
      continue;
    }
    // A superblock is half * lanes = 32 pairs wide.
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      if (pair + i * lanes >= count * width) break;
      const std::int64_t in = (pair + i * lanes) % 32, rest = units - unit;
      if (in < rest) store(out + in, cosine[i]);
      if (in + 32 < rest) store(out + in + 32, sine[i]);
      if (in + lanes < 32) continue;
      out += min_of(rest, 64);
      unit = rest <= 64 ? 0 : unit + 64;
    }
  }
}

// Elements first .. first + count - 1 in the flat layout of random.h, at most tile_units.
template <class Noise>
void fill_flat(Noise noise, const NoiseSource& source, std::int64_t first, std::int64_t count, float* out) {
  const std::int64_t block = first / 64, blocks = ceil_div(first + count, 64) - block;
  const auto address = [block](std::int64_t q, std::uint32_t& r, std::uint32_t& b) {
    constexpr std::int64_t row_blocks = philox::flat_units / 64;
    r = static_cast<std::uint32_t>((block + q) / row_blocks);
    b = static_cast<std::uint32_t>((block + q) % row_blocks);
  };
  float* to = out + 64 * block - first;
  for_superblocks(source, blocks, address, [&](std::int64_t q, int n, const U(&words)[vectors_at_once]) {
    GENCORE_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      if (v < n * superblock_vectors) store(to + 64 * q + v * lanes, (F)words[v]);
    }
  });
  words_to_noise(noise, count, out);
}

}  // namespace gencore::GENCORE_LEVEL
