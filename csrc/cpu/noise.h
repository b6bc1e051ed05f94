// Standard noise from Philox words, and tiles of it: the noise of a stretch of elements, in a buffer that stays in the
// first-level cache. What a kernel does with it is then a plain loop over elements.
#pragma once

#include "elements.h"
#include "math.h"
#include "parallel.h"
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
constexpr std::int64_t max_superblocks = 2 * tile_units / 64;  // whose noise is made at a time

// Floats of a tile, with its margins.
struct TileBuffer {
  alignas(64) float memory[tile_units + 2 * tile_margin];
  GENCORE_INLINE float* data() { return memory + tile_margin; }
};

// Where the noise of an op is found, in the flat layout of random.h.
struct NoiseSource {
  Key key;
  philox::Stream stream;  // without a row
  std::int64_t first;     // element of the flat layout that is the op's first

  // Of an op on matrices of so many columns.
  template <class Coordinates>
  NoiseSource(const Coordinates& op, philox::Domain domain, std::int64_t columns)
      : key(op.key),
        stream(philox::stream(domain, static_cast<std::uint64_t>(op.step), 0)),
        first(op.first_row * columns) {}
};

constexpr int vectors_at_once = superblocks_at_once * superblock_vectors;

// Runs Philox over `count` superblocks from `first` on, and hands them over in order: take(q, n, words) gets the words of
// n superblocks, the q-th of them and those after it, and rubbish behind them.
template <class Take>
GENCORE_INLINE void for_superblocks(const NoiseSource& source, std::int64_t first, std::int64_t count,
                                    const Take& take) {
  constexpr std::int64_t row_superblocks = philox::flat_units / 64;
  for (std::int64_t q = 0; q < count; q += superblocks_at_once) {
    std::uint32_t row[superblocks_at_once], block[superblocks_at_once];
    GENCORE_UNROLL
    for (int i = 0; i < superblocks_at_once; ++i) {
      row[i] = static_cast<std::uint32_t>((first + q + i) / row_superblocks);
      block[i] = static_cast<std::uint32_t>((first + q + i) % row_superblocks);
    }
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

// The noise of `count` superblocks from `first` on, at most max_superblocks, into out. Up to 64 floats behind them are
// rubbish.
template <class Noise>
void fill_superblocks(Noise noise, const NoiseSource& source, std::int64_t first, std::int64_t count, float* out) {
  for_superblocks(source, first, count, [&](std::int64_t q, int n, const U(&words)[vectors_at_once]) {
    GENCORE_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      if (v < n * superblock_vectors) store(out + 64 * q + v * lanes, (F)words[v]);
    }
  });
  words_to_noise(noise, 64 * count, out);
}

// Radii from the first half of a superblock's words, angles from the second; the first half of its units are cosines, the
// second sines.
inline void fill_superblocks(NormalNoise, const NoiseSource& source, std::int64_t first, std::int64_t count,
                             float* out) {
  constexpr int half = superblock_vectors / 2;
  alignas(64) float radii[32 * (max_superblocks + 1)], angles[32 * (max_superblocks + 1)];
  for_superblocks(source, first, count, [&](std::int64_t q, int, const U(&words)[vectors_at_once]) {
    GENCORE_UNROLL
    for (int v = 0; v < vectors_at_once; ++v) {
      const int in = v % superblock_vectors;
      float* to = in < half ? radii : angles;
      store(to + 32 * (q + v / superblock_vectors) + in % half * lanes, (F)words[v]);
    }
  });
  for (std::int64_t pair = 0; pair < 32 * count; pair += at_side * lanes) {
    U radius_words[at_side], angle_words[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      radius_words[i] = (U)load(radii + pair + i * lanes);
      angle_words[i] = (U)load(angles + pair + i * lanes);
    }
    F cosine[at_side], sine[at_side];
    box_muller(radius_words, angle_words, cosine, sine);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      const std::int64_t p = pair + i * lanes, unit = 2 * p - p % 32;
      store(out + unit, cosine[i]);
      store(out + unit + 32, sine[i]);
    }
  }
}

// Noise of one stretch of an op's elements after the other. Stretches need not end where superblocks do: what is left of
// the last superblocks is kept for the next stretch.
template <class Noise>
class NoiseRun {
 public:
  // No noise from element `end` on will be asked for.
  NoiseRun(const NoiseSource& source, std::int64_t end)
      : source_(source), limit_(ceil_div(source.first + end, 64)), first_(0), count_(0) {}

  // Of elements first .. first + count - 1, at most tile_units; valid until the next call.
  GENCORE_INLINE const float* at(std::int64_t first, std::int64_t count) {
    const std::int64_t element = source_.first + first, begin = element / 64, end = ceil_div(element + count, 64);
    if (begin < first_ || end > first_ + count_) advance(begin);
    return noise_ + (element - 64 * first_);
  }

 private:
  void advance(std::int64_t begin) {
    const std::int64_t kept = begin >= first_ ? max_of(first_ + count_ - begin, 0) : 0;
    std::memmove(noise_, noise_ + 64 * (count_ - kept), static_cast<std::size_t>(4 * 64 * kept));
    first_ = begin;
    count_ = min_of(max_superblocks, limit_ - begin);
    fill_superblocks(Noise{}, source_, begin + kept, count_ - kept, noise_ + 64 * kept);
  }

  NoiseSource source_;
  std::int64_t limit_, first_, count_;  // superblocks
  alignas(64) float noise_[64 * (max_superblocks + 1)];
};

// body(first, count, noise) for tiles of the elements of an op, cut where superblocks end.
template <class Noise, class Body>
void for_each_noise_tile(Noise, const NoiseSource& source, std::int64_t count, const Body& body) {
  const std::int64_t end = source.first + count, first_task = source.first / task_units;
  parallel_for(ceil_div(end, task_units) - first_task, [&](std::int64_t task) {
    std::int64_t at = max_of(source.first, (first_task + task) * task_units);
    const std::int64_t stop = min_of(end, (first_task + task + 1) * task_units);
    NoiseRun<Noise> noise(source, stop - source.first);
    while (at < stop) {
      const std::int64_t next = min_of(stop, (at / tile_units + 1) * tile_units);
      body(at - source.first, next - at, noise.at(at - source.first, next - at));
      at = next;
    }
  });
}

}  // namespace gencore::GENCORE_LEVEL
