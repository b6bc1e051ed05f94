// Draws of binary units: bit = u < logistic(field), for 128 units at a time, straight from the field to packed bits.
// Neither the mean nor the uniform is ever written to memory.
//
// u has 32 bits. The first 16 (the head) decide unless the probability falls into the head's interval, once in 2^16; only
// then the other 16 (the tail) are computed. That halves the Philox work. No division: with e = exp(-|field|), s = 1 + e,
// logistic(field) = T / s for T = 1 (field > 0) or e, and u < T / s is u s < T.
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

// The tail's word on a unit whose head left it open.
inline bool resolve_tie(const Draw& draw, std::int64_t unit, float threshold, float scaled_head, float scale) {
  const float tail = static_cast<float>(philox::half_at(draw.key, draw.tail, unit)) + 0.5f;
  return tail * scale < (threshold - scaled_head) * 65536.0f;
}

// A vector of fields and e = exp(-|field|).
struct Fields {
  F x, e;
};

GENCORE_INLINE Fields with_tail(F x) { return {x, exp_minus_abs(x)}; }

// Units first .. first + 127 (first a multiple of 128); those at or beyond `count` are drawn as 0.
// field(offset) gives the Fields of units first + offset, ... for offset < round_up(count, lanes).
template <class Field>
GENCORE_INLINE void draw_group(const Draw& draw, std::int64_t first, std::int64_t count, const Field& field,
                               std::uint64_t out[2]) {
  Superblock random;
  philox_superblock({draw.key, draw.head}, static_cast<std::uint32_t>(first / 128), random);
  for (int half = 0; half < 2; ++half) {
    std::uint64_t word = 0;
    if (64 * half < count) {
      GENCORE_UNROLL
      for (int i = 0; i < 4 * parts; ++i) {
        const int offset = 64 * half + i * lanes;
        if (offset >= count) break;
        const U r = random.word[i / parts][i % parts];
        const F head = to_float((I)(half == 0 ? (r & 0xFFFFu) : (r >> 16)));
        const auto [x, e] = field(offset);
        const F scale = 1.0f + e;
        const F threshold = select(less(splat(0.0f), x), splat(1.0f), e) * 65536.0f;
        const F scaled = head * scale;
        std::uint32_t drawn = bits(less(scaled, threshold));
        std::uint32_t open = drawn & ~bits(less_equal(scaled + scale, threshold));
        while (__builtin_expect(open != 0, 0)) {
          const int lane = __builtin_ctz(open);
          open &= open - 1;
          float t[lanes], a[lanes], s[lanes];
          store(t, threshold);
          store(a, scaled);
          store(s, scale);
          if (!resolve_tie(draw, first + offset + lane, t[lane], a[lane], s[lane])) drawn &= ~(1u << lane);
        }
        word |= static_cast<std::uint64_t>(drawn) << (i * lanes);
      }
    }
    const std::int64_t valid = count - 64 * half;
    out[half] = valid >= 64 ? word : (valid <= 0 ? 0 : word & ((std::uint64_t{1} << valid) - 1));
  }
}

}  // namespace gencore::GENCORE_LEVEL
