// Draws of binary units, 128 at a time: bit = u < logistic(field) from fields to packed bits, and bit = u < p. Neither
// means nor uniforms are ever written out.
//
// u has 32 bits. The first 16 (the head) decide unless the probability falls into the head's interval, once in 2^16;
// only then the other 16 (the tail) are computed. That halves the Philox work, and the rest is done between its rounds.
// No division: with e = exp(-|field|), s = 1 + e, logistic(field) = T / s for T = 1 (field > 0) or e, and u < T / s is
// u s < T.
#pragma once

#include "math.h"
#include "philox.h"

namespace gencore::GENCORE_LEVEL {

// Who draws: key and counters of one row, for one side of the machine.
struct Draw {
  Key key;
  philox::Stream head, tail;
};

GENCORE_INLINE Draw make_draw(Key key, philox::Domain head, std::uint64_t step, std::uint64_t row) {
  const auto tail = static_cast<philox::Domain>(head + 1);
  return {key, philox::stream(head, step, row), philox::stream(tail, step, row)};
}

// A vector of fields and e = exp(-|field|).
struct Fields {
  F x, e;
};

GENCORE_INLINE Fields with_tail(F x) { return {x, exp_minus_abs(x)}; }

// bit = u scale < threshold.
struct Odds {
  F threshold, scale;
};

GENCORE_INLINE Odds odds_of(const Odds& odds) { return odds; }
GENCORE_INLINE Odds odds_of(const Fields& f) { return {select_negative(f.x, f.e, splat(1.0f)), 1.0f + f.e}; }

// head 2^-16 of `lanes` units: the bits are put under the exponent of 128, whose unit in the last place is 2^-16.
GENCORE_INLINE F low_heads(U r) { return as_float((I)((r & 0xFFFFu) | 0x43000000u)) - 128.0f; }
GENCORE_INLINE F high_heads(U r) { return as_float((I)((r >> 16) | 0x43000000u)) - 128.0f; }

// Whether a unit that its head leaves open is drawn: its tail decides.
__attribute__((noinline, cold)) inline bool draw_tail(const Draw& draw, std::int64_t unit, float threshold,
                                                      float scale) {
  const float head = static_cast<float>(philox::half_at(draw.key, draw.head, unit)) * 0x1p-16f;
  const float tail = static_cast<float>(philox::half_at(draw.key, draw.tail, unit)) + 0.5f;
  return tail * scale < (threshold - head * scale) * 0x1p32f;
}

// Units first .. first + 127 (first a multiple of 128); those at or beyond `count` are drawn as 0.
// field(offset) gives the Fields (or Odds) of units first + offset, ...; it is called once for each
// offset < round_up(count, lanes).
template <class Field>
GENCORE_INLINE void draw_group(const Draw& draw, std::int64_t first, std::int64_t count, const Field& field,
                               std::uint64_t out[2]) {
  float threshold[128], scale[128];
  PhiloxRounds<1> rounds({draw.key, draw.head}, static_cast<std::uint32_t>(first / 128));
  GENCORE_UNROLL
  for (int i = 0; i < 8; ++i) {
    rounds.round();
    GENCORE_UNROLL
    for (int j = 0; j < parts; ++j) {
      const int offset = 16 * i + j * lanes;
      if (offset >= count) break;
      const Odds odds = odds_of(field(offset));
      store(threshold + offset, odds.threshold);
      store(scale + offset, odds.scale);
    }
  }
  rounds.round();
  Superblock random[1];
  rounds.finish(random);
  GENCORE_UNROLL
  for (int half = 0; half < 2; ++half) {
    std::uint64_t drawn = 0, certain = 0;
    GENCORE_UNROLL
    for (int i = 0; i < 4 * parts; ++i) {
      const int offset = 64 * half + i * lanes;
      if (offset >= count) break;
      const U r = random[0].word[i / parts][i % parts];
      const F head = half == 0 ? low_heads(r) : high_heads(r);
      const F top = load(threshold + offset), by = load(scale + offset);
      const F scaled = head * by, next = fma(by, splat(0x1p-16f), scaled);
      drawn |= static_cast<std::uint64_t>(bits(less(scaled, top))) << (i * lanes);
      certain |= static_cast<std::uint64_t>(bits(less_equal(next, top))) << (i * lanes);
    }
    const std::int64_t valid = count - 64 * half;
    const std::uint64_t mask = valid >= 64 ? ~std::uint64_t{0} : (valid <= 0 ? 0 : (std::uint64_t{1} << valid) - 1);
    drawn &= mask;
    certain &= mask;
    for (std::uint64_t open = drawn ^ certain; __builtin_expect(open != 0, 0); open &= open - 1) {
      const int unit = 64 * half + __builtin_ctzll(open);
      if (!draw_tail(draw, first + unit, threshold[unit], scale[unit])) drawn &= ~(std::uint64_t{1} << (unit % 64));
    }
    out[half] = drawn;
  }
}

// 128 * superblocks_at_once units from `first` on, with probabilities p: 16-bit heads against 16-bit thresholds, two
// units a lane.
// False where a head leaves a unit open (once in 2^16 units) or a p is outside [0, 1]: draw_group decides, then.
GENCORE_INLINE bool draw_probabilities(const Draw& draw, std::int64_t first, const float* p, std::uint64_t* out) {
  constexpr int n = 4 * parts, count = superblocks_at_once;
  PhiloxRounds<count> rounds({draw.key, draw.head}, static_cast<std::uint32_t>(first / 128));
  const F below_one = splat(0x1.fffffep-1f);  // for p = 1 the head is 65535 or less: then the tail decides, for 1
  U thresholds[count][n], largest{};
  GENCORE_UNROLL
  for (int i = 0; i < 8; ++i) {
    rounds.round();
    GENCORE_UNROLL
    for (int j = i * count * n / 8; j < (i + 1) * count * n / 8; ++j) {
      const float* at = p + 128 * (j / n) + j % n * lanes;
      const F low = load(at), high = load(at + 64);
      largest = max_u(max_u(largest, (U)low), (U)high);
      thresholds[j / n][j % n] = (floor_16(min(below_one, high)) << 16) | (floor_16(min(below_one, low)) & 0xFFFFu);
    }
  }
  rounds.round();
  Superblock random[count];
  rounds.finish(random);
  std::uint32_t open = any_above(largest, 0x3F800000u);
  GENCORE_UNROLL
  for (int s = 0; s < count; ++s) {
    std::uint64_t low = 0, high = 0;
    GENCORE_UNROLL
    for (int i = 0; i < n; i += 2) {
      const U head[2] = {random[s].word[i / parts][i % parts], random[s].word[(i + 1) / parts][(i + 1) % parts]};
      const U* threshold = thresholds[s] + i;
      const Halves drawn = less_halves(head, threshold);
      low |= drawn.low << (i * lanes);
      high |= drawn.high << (i * lanes);
      open |= any_equal_half(head[0], threshold[0]) | any_equal_half(head[1], threshold[1]);
    }
    out[2 * s] = low;
    out[2 * s + 1] = high;
  }
  return open == 0;
}

}  // namespace gencore::GENCORE_LEVEL
