// Binary states as bits. A block of rows is held word by word: bits[word * rows + row] is units 64 word .. 64 word + 63 of
// that row, so that one word of every row lies together, next to the 64 weight rows it selects.
#pragma once

#include "vec.h"

namespace gencore::GENCORE_LEVEL {

GENCORE_INLINE std::int64_t word_count(std::int64_t units) { return ceil_div(units, 64); }

// 64 states from memory; `bad` becomes true where one is neither 0 nor 1.
GENCORE_INLINE std::uint64_t pack_word(const std::uint8_t* p, std::int64_t n, bool& bad) {
  constexpr std::uint64_t ones = 0x0101010101010101u;
  std::uint64_t word = 0, seen = 0;
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, p + i, 8);
    seen |= eight;
    word |= (((eight & ones) * 0x0102040810204080u) >> 56) << i;  // byte j's low bit goes to bit j
  }
  for (; i < n; ++i) {
    seen |= p[i];
    word |= static_cast<std::uint64_t>(p[i] & 1) << i;
  }
  bad = bad || (seen & ~ones) != 0;
  return word;
}

GENCORE_INLINE std::uint64_t pack_word(const float* p, std::int64_t n, bool& bad) {
  std::uint64_t word = 0;
  for (std::int64_t i = 0; i < n; i += lanes) {
    const int count = static_cast<int>(min_of(lanes, n - i));
    const F v = count == lanes ? load(p + i) : load_first(p + i, count);
    const F one = splat(1.0f), zero = splat(0.0f);
    const std::uint32_t is_one = bits(less_equal(v, one)) & bits(less_equal(one, v));
    const std::uint32_t is_zero = bits(less_equal(v, zero)) & bits(less_equal(zero, v));
    bad = bad || (is_one | is_zero) != (1u << lanes) - 1;
    word |= static_cast<std::uint64_t>(is_one) << i;
  }
  return word;
}

template <class T>
GENCORE_INLINE bool pack_rows_of(const T* states, std::int64_t units, std::int64_t rows, std::uint64_t* bits) {
  bool bad = false;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t w = 0; 64 * w < units; ++w) {
      bits[w * rows + r] = pack_word(states + r * units + 64 * w, min_of(64, units - 64 * w), bad);
    }
  }
  return !bad;
}

// Rows first_row .. first_row + rows into bits; false where a state is neither 0 nor 1.
inline bool pack_states(const ConstStates& s, std::int64_t first_row, std::int64_t rows, std::uint64_t* bits) {
  const std::int64_t units = s.shape[1];
  if (s.type == StateType::u8) {
    return pack_rows_of(static_cast<const std::uint8_t*>(s.data) + first_row * units, units, rows, bits);
  }
  return pack_rows_of(static_cast<const float*>(s.data) + first_row * units, units, rows, bits);
}

template <class T>
GENCORE_INLINE void unpack_rows_to(T* states, std::int64_t units, std::int64_t rows, const std::uint64_t* bits) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t w = 0; 64 * w < units; ++w) {
      const std::uint64_t word = bits[w * rows + r];
      T* out = states + r * units + 64 * w;
      const std::int64_t n = min_of(64, units - 64 * w);
      for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>((word >> i) & 1);
    }
  }
}

inline void unpack_states(const States& s, std::int64_t first_row, std::int64_t rows, const std::uint64_t* bits) {
  const std::int64_t units = s.shape[1];
  if (s.type == StateType::u8) {
    unpack_rows_to(static_cast<std::uint8_t*>(s.data) + first_row * units, units, rows, bits);
  } else {
    unpack_rows_to(static_cast<float*>(s.data) + first_row * units, units, rows, bits);
  }
}

// In place: bit j of word i <-> bit i of word j (Hacker's Delight 7-3).
inline void transpose_64(std::uint64_t a[64]) {
  std::uint64_t mask = 0x00000000FFFFFFFFu;
  for (int width = 32; width != 0; width >>= 1, mask ^= mask << width) {
    for (int k = 0; k < 64; k = ((k | width) + 1) & ~width) {
      const std::uint64_t t = ((a[k] >> width) ^ a[k | width]) & mask;
      a[k] ^= t << width;
      a[k | width] ^= t;
    }
  }
}

}  // namespace gencore::GENCORE_LEVEL
