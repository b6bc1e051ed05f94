// Standard noise from Philox words, and tiles of it: the noise of some rows, or of a part of one, dense in a buffer that
// stays in the first-level cache. What a kernel does with it is then a plain loop over elements.
#pragma once

#include "math.h"
#include "philox.h"

namespace gencore::GENCORE_LEVEL {

constexpr int superblock_vectors = 4 * parts;

// Each kind turns a uniform u into a variate; normal noise takes two.
struct UniformNoise {
  static GENCORE_INLINE F of(F u) { return u; }
};
struct ExponentialNoise {
  static GENCORE_INLINE F of(F u) { return -log(u); }
};
struct GumbelNoise {
  static GENCORE_INLINE F of(F u) { return -log(-log(u)); }
};
// 1 - u is exact.
struct LogisticNoise {
  static GENCORE_INLINE F of(F u) { return log(u) - log(1.0f - u); }
};
struct LaplaceNoise {
  static GENCORE_INLINE F of(F u) {
    const F rest = 1.0f - u, tail = log(2.0f * min(u, rest));
    return select(less(u, splat(0.5f)), tail, -tail);
  }
};
struct NormalNoise {};

// Box and Muller: a radius from one uniform, an angle from another.
GENCORE_INLINE void box_muller(U radius_word, U angle_word, F& cosine, F& sine) {
  const F radius = sqrt(-2.0f * log(to_uniform(radius_word)));
  cos_sin_turn(to_uniform(angle_word), cosine, sine);
  cosine = radius * cosine;
  sine = radius * sine;
}

// put(i, vector i of the superblock's variates), in order where kinds allow, for the first `vectors` at least.
template <class Noise, class Put>
GENCORE_INLINE void to_noise(Noise, const U* words, int vectors, const Put& put) {
  GENCORE_UNROLL
  for (int i = 0; i < superblock_vectors; ++i) {
    if (i < vectors) put(i, Noise::of(to_uniform(words[i])));
  }
}
// The first half of a superblock's units pairs with the second.
template <class Put>
GENCORE_INLINE void to_noise(NormalNoise, const U* words, int vectors, const Put& put) {
  constexpr int half = superblock_vectors / 2;
  GENCORE_UNROLL
  for (int i = 0; i < half; ++i) {
    if (i >= vectors) break;
    F cosine, sine;
    box_muller(words[i], words[i + half], cosine, sine);
    put(i, cosine);
    if (i + half < vectors) put(i + half, sine);
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

// Runs Philox over `count` superblocks, superblock q being that of address(q, row, block), and hands the words of each
// to take(q, words), in order.
template <class Address, class Take>
GENCORE_INLINE void for_each_superblock(const NoiseSource& source, std::int64_t count, const Address& address,
                                        const Take& take) {
  constexpr int at_once = superblocks_at_once;
  for (std::int64_t q = 0; q < count; q += at_once) {
    std::uint32_t row[at_once], block[at_once];
    GENCORE_UNROLL
    for (int i = 0; i < at_once; ++i) address(min_of(q + i, count - 1), row[i], block[i]);
    Superblock random[at_once];
    run_rounds(PhiloxRounds<at_once>(source.key, source.stream, row, block), random);
    GENCORE_UNROLL
    for (int i = 0; i < at_once; ++i) {
      if (q + i >= count) break;
      U words[superblock_vectors];
      GENCORE_UNROLL
      for (int v = 0; v < superblock_vectors; ++v) words[v] = random[i].word[v / parts][v % parts];
      take(q + i, words);
    }
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
  for_each_superblock(source, rows * blocks, address, [&](std::int64_t, const U* words) {
    const std::int64_t rest = units - unit;
    const int vectors = static_cast<int>(min_of(ceil_div(rest, lanes), superblock_vectors));
    to_noise(Noise{}, words, vectors, [&](int v, F value) { store(out + v * lanes, value); });
    out += min_of(rest, 64);
    unit = rest <= 64 ? 0 : unit + 64;
  });
}

// Normal noise of rows of at most 32 units: a radius and an angle for each, so words are brought together first and
// turned into variates by whole vectors.
inline void fill_normal_short(const NoiseSource& source, std::int64_t row, std::int64_t rows, std::int64_t units,
                              float* out) {
  TileBuffer radius, angle;
  constexpr int half = superblock_vectors / 2;
  const RowAddress address{source.stream.row + static_cast<std::uint32_t>(row), 0, 1};
  const int vectors = static_cast<int>(ceil_div(units, lanes));
  for_each_superblock(source, rows, address, [&](std::int64_t q, const U* words) {
    GENCORE_UNROLL
    for (int v = 0; v < half; ++v) {
      if (v >= vectors) break;
      store(radius.data() + q * units + v * lanes, (F)words[v]);
      store(angle.data() + q * units + v * lanes, (F)words[v + half]);
    }
  });
  for (std::int64_t i = 0; i < rows * units; i += lanes) {
    F cosine, sine;
    box_muller((U)load(radius.data() + i), (U)load(angle.data() + i), cosine, sine);
    store(out + i, cosine);
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
  for_each_superblock(source, blocks, address, [&](std::int64_t q, const U* words) {
    to_noise(Noise{}, words, superblock_vectors, [&](int v, F value) { store(out + 64 * q + v * lanes, value); });
  });
}

}  // namespace gencore::GENCORE_LEVEL
