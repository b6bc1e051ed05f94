// Standard noise from Philox words, and tiles of it: the noise of some rows, or of a part of one, dense in a buffer that
// stays in the first-level cache. What a kernel does with it is then a plain loop over elements.
#pragma once

#include "math.h"
#include "philox.h"

namespace gencore::GENCORE_LEVEL {

constexpr int superblock_vectors = 4 * parts;

constexpr int at_side = 4;  // vectors that go through a function side by side

// Each kind turns uniforms into variates, in place; normal noise takes two. Uniforms and their complements, which are
// exact, and the first logarithm are normal numbers other than 0.
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
struct GumbelNoise {
  static GENCORE_INLINE void of(F (&u)[at_side]) {
    ExponentialNoise::of(u);
    ExponentialNoise::of(u);
  }
};
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

// The words of N superblocks, in the order of their units, become variates.
template <class Noise, int N>
GENCORE_INLINE void to_noise(Noise, const U (&words)[N], F (&values)[N]) {
  GENCORE_UNROLL
  for (int first = 0; first < N; first += at_side) {
    F u[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) u[i] = to_uniform(words[first + i]);
    Noise::of(u);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) values[first + i] = u[i];
  }
}
// The first half of a superblock's units pairs with the second.
template <int N>
GENCORE_INLINE void to_noise(NormalNoise, const U (&words)[N], F (&values)[N]) {
  constexpr int half = superblock_vectors / 2;
  GENCORE_UNROLL
  for (int first = 0; first < N / 2; first += at_side) {
    U radius[at_side], angle[at_side];
    F cosine[at_side], sine[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      const int at = (first + i) / half * superblock_vectors + (first + i) % half;
      radius[i] = words[at];
      angle[i] = words[at + half];
    }
    box_muller(radius, angle, cosine, sine);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      const int at = (first + i) / half * superblock_vectors + (first + i) % half;
      values[at] = cosine[i];
      values[at + half] = sine[i];
    }
  }
}

// --- tiles ---------------------------------------------------------------------------------------------------------

constexpr std::int64_t tile_units = 1024;
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

// Units first .. first + units - 1 of `rows` rows from `row` on, one row after the other in out; first is a multiple of
// 64. A vector that overruns the end of its row is overwritten by the next row.
template <class Noise>
void fill_noise(const NoiseSource& source, std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t units,
                float* out) {
  const std::int64_t blocks = ceil_div(units, 64);
  const RowAddress address{source.stream.row + static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(first / 64),
                           blocks};
  std::int64_t unit = 0;
  for_superblocks(source, rows * blocks, address, [&](std::int64_t, int n, const U(&words)[vectors_at_once]) {
    F values[vectors_at_once];
    to_noise(Noise{}, words, values);
    GENCORE_UNROLL
    for (int i = 0; i < superblocks_at_once; ++i) {
      if (i >= n) break;
      const std::int64_t rest = units - unit;
      GENCORE_UNROLL
      for (int v = 0; v < superblock_vectors; ++v) {
        if (v * lanes < rest) store(out + v * lanes, values[i * superblock_vectors + v]);
      }
      out += min_of(rest, 64);
      unit = rest <= 64 ? 0 : unit + 64;
    }
  });
}

// Normal noise of rows of at most 32 units: a radius and an angle for each, so words are brought together first and
// turned into variates by whole vectors.
inline void fill_normal_short(const NoiseSource& source, std::int64_t row, std::int64_t rows, std::int64_t units,
                              float* out) {
  TileBuffer radius, angle;
  constexpr int half = superblock_vectors / 2;
  const RowAddress address{source.stream.row + static_cast<std::uint32_t>(row), 0, 1};
  for_superblocks(source, rows, address, [&](std::int64_t q, int n, const U(&words)[vectors_at_once]) {
    GENCORE_UNROLL
    for (int i = 0; i < superblocks_at_once; ++i) {
      if (i >= n) break;
      GENCORE_UNROLL
      for (int v = 0; v < half; ++v) {
        if (v * lanes >= units) break;
        const U* word = words + i * superblock_vectors + v;
        store(radius.data() + (q + i) * units + v * lanes, (F)word[0]);
        store(angle.data() + (q + i) * units + v * lanes, (F)word[half]);
      }
    }
  });
  for (std::int64_t first = 0; first < rows * units; first += at_side * lanes) {
    U radii[at_side], angles[at_side];
    F cosine[at_side], sine[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      radii[i] = (U)load(radius.data() + first + i * lanes);
      angles[i] = (U)load(angle.data() + first + i * lanes);
    }
    box_muller(radii, angles, cosine, sine);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) store(out + first + i * lanes, cosine[i]);
  }
}

// The noise of a tile, dense.
template <class Noise>
GENCORE_INLINE void fill_tile(Noise, const NoiseSource& source, std::int64_t row, std::int64_t rows, std::int64_t first,
                              std::int64_t units, float* out) {
  fill_noise<Noise>(source, row, rows, first, units, out);
}
GENCORE_INLINE void fill_tile(NormalNoise, const NoiseSource& source, std::int64_t row, std::int64_t rows,
                              std::int64_t first, std::int64_t units, float* out) {
  if (units <= 32 && first == 0) {
    fill_normal_short(source, row, rows, units, out);
  } else {
    fill_noise<NormalNoise>(source, row, rows, first, units, out);
  }
}

// Elements first .. first + count - 1 in the flat layout of random.h, at most tile_units.
template <class Noise>
void fill_noise_flat(const NoiseSource& source, std::int64_t first, std::int64_t count, float* out) {
  const std::int64_t block = first / 64, blocks = ceil_div(first + count, 64) - block;
  const auto address = [block](std::int64_t q, std::uint32_t& r, std::uint32_t& b) {
    constexpr std::int64_t row_blocks = philox::flat_units / 64;
    r = static_cast<std::uint32_t>((block + q) / row_blocks);
    b = static_cast<std::uint32_t>((block + q) % row_blocks);
  };
  out += 64 * block - first;
  for_superblocks(source, blocks, address, [&](std::int64_t q, int n, const U(&words)[vectors_at_once]) {
    F values[vectors_at_once];
    to_noise(Noise{}, words, values);
    GENCORE_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      if (v < n * superblock_vectors) store(out + 64 * q + v * lanes, values[v]);
    }
  });
}

}  // namespace gencore::GENCORE_LEVEL
