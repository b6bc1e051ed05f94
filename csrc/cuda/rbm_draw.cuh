// A unit from its field, as cpu/bernoulli.h draws it: bit = u < logistic(x) by the 16 bits of u's head, and by those of
// its tail where the head leaves it open. With e = exp(-|x|) and s = 1 + e, logistic(x) is T / s for T = 1 (x > 0) or e:
// u s < T needs no division.
#pragma once

#include "common.cuh"
#include "math.cuh"

namespace gencore::cuda {

// bit = u scale < threshold.
struct Odds {
  float threshold, scale;
};

__device__ inline Odds odds_of(float x) {
  const float e = exp_minus_abs(x);
  return {(__float_as_uint(x) >> 31) != 0 ? e : 1.0f, 1.0f + e};
}

// Who draws: key and counters of one row, for one side of the machine.
struct RowDraw {
  Key key;
  philox::Domain head;
  std::uint64_t step, row;

  __device__ philox::Stream stream(int tail) const {
    return philox::stream(static_cast<philox::Domain>(head + tail), step, row);
  }
  // The block that has the heads of unit `unit` and of those 16, 32, ... further on, up to the next multiple of 128.
  __device__ philox::Block block(std::int64_t unit) const {
    const philox::Stream s = stream(0);
    return philox::block(key, static_cast<std::uint32_t>(16 * (unit / 128) + unit % 16), s.row, s.step, s.tag);
  }
};

// By the tail. Called once in 2^16 draws, and a function of its own so that loops over draws stay small.
__device__ __attribute__((noinline)) inline bool draw_tail(Key key, philox::Stream stream, std::int64_t unit,
                                                           std::uint32_t head, float threshold, float scale) {
  const float low = static_cast<float>(head) * 0x1p-16f;
  const float tail = static_cast<float>(philox::half_at(key, stream, unit)) + 0.5f;
  return tail * scale < (threshold - low * scale) * 0x1p32f;
}

__device__ inline bool draw_unit(const RowDraw& draw, std::int64_t unit, std::uint32_t head, const Odds& odds) {
  const float scaled = static_cast<float>(head) * 0x1p-16f * odds.scale, next = fmaf(odds.scale, 0x1p-16f, scaled);
  const bool drawn = scaled < odds.threshold, certain = next <= odds.threshold;
  return drawn && (certain || draw_tail(draw.key, draw.stream(1), unit, head, odds.threshold, odds.scale));
}

constexpr int group_units = 128;  // of one row, drawn by a warp: lane l has units l, l + 32, l + 64 and l + 96
constexpr int lane_units = group_units / warp_lanes;

__device__ inline std::int64_t lane_unit(std::int64_t first, int c) {
  return first + threadIdx.x % warp_lanes + warp_lanes * c;
}

// Bit c of the result is unit first + lane + 32 c; those at or beyond `count` are 0.
__device__ inline unsigned draw_group(const RowDraw& draw, std::int64_t first, std::int64_t count,
                                      const Odds (&odds)[lane_units]) {
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const philox::Block random = draw.block(first + lane % 16);
  const bool second = lane >= 16;
  unsigned bits = 0;
#pragma unroll
  for (int c = 0; c < lane_units; ++c) {
    const std::uint32_t word = second ? random.word[1 + 2 * (c % 2)] : random.word[2 * (c % 2)];
    const std::uint32_t head = c < 2 ? word & 0xFFFFu : word >> 16;
    const std::int64_t unit = lane_unit(first, c);
    bits |= static_cast<unsigned>(unit < count && draw_unit(draw, unit, head, odds[c])) << c;
  }
  return bits;
}

// Units first + 16 c of one row, first being in the first 16 of a group; c begins at `begin`, 0 or 4.
constexpr int draw_stride = 16;
struct UnitDraws {
  RowDraw draw;
  std::int64_t first;
  int begin;
  philox::Block random;

  __device__ UnitDraws(const RowDraw& draw, std::int64_t first, int begin = 0)
      : draw(draw), first(first), begin(begin), random(draw.block(first)) {}
  // Unit first + 16 (begin + c).
  __device__ bool drawn(int c, const Odds& odds) const {
    const std::uint32_t word = random.word[c % 4];
    return draw_unit(draw, first + draw_stride * (begin + c), begin + c < 4 ? word & 0xFFFFu : word >> 16, odds);
  }
};

}  // namespace gencore::cuda
