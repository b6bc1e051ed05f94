// How a unit of an image is drawn, by a warp: cpu/pixels.cpp's rule, with levels side by side. Running sums of masses are
// float64; their order differs from the CPU's, by which a draw could change where a uniform is within 1e-13 of a border.
#pragma once

#include "common.cuh"
#include "gencore/sample_coordinates.h"
#include "logistic_mixture.cuh"

namespace gencore::cuda {

constexpr int lane_levels = 256 / warp_lanes;  // lane l has levels 8 l to 8 l + 7

__device__ inline Team warp_team() { return {warp_lanes, static_cast<int>(threadIdx.x) % warp_lanes}; }

// 32 bits of a unit of one row, the head's first.
__device__ inline double unit_uniform(Key key, std::int64_t step, std::int64_t row, std::int64_t unit) {
  const auto half = [&](philox::Domain domain) {
    const auto stream = philox::stream(domain, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(row));
    return philox::half_at(key, stream, unit);
  };
  const std::uint32_t bits = half(philox::pixel_head) << 16 | half(philox::pixel_tail);
  return (static_cast<double>(bits) + 0.5) * 0x1p-32;
}

// What a unit is drawn by: `count` numbers that there are for it, where mixtures > 0 its parameters.
struct UnitLaw {
  std::int64_t count, mixtures, levels;
  float scale;  // 1 / temperature

  // The thread's levels; -inf for those that there are not.
  __device__ void own_logits(const float* from, float (&x)[lane_levels]) const {
    const int first = warp_team().rank * lane_levels;
    if (mixtures > 0) return own_log_probs(from, first, x);
#pragma unroll
    for (int i = 0; i < lane_levels; ++i) x[i] = first + i < count ? from[first + i] : -infinity;
  }
  __device__ std::uint8_t operator()(const float* from, double u) const {
    if (mixtures == 0 && count == 1) return u < static_cast<double>(logistic(from[0] * scale)) ? 1 : 0;
    const Team warp = warp_team();
    float mass[lane_levels], top = -infinity;
    own_logits(from, mass);
#pragma unroll
    for (int i = 0; i < lane_levels; ++i) top = mass[i] > top ? mass[i] : top;
    top = warp.max(top);
    const int first = warp.rank * lane_levels, all = static_cast<int>(mixtures > 0 ? levels : count);
    double own = 0;
#pragma unroll
    for (int i = 0; i < lane_levels; ++i) {
      mass[i] = first + i < all ? exp((mass[i] - top) * scale) : 0.0f;
      own += static_cast<double>(mass[i]);
    }
    const double running = warp.running_sum(own), before = __shfl_up_sync(all_lanes, running, 1);
    const double target = u * __shfl_sync(all_lanes, running, warp_lanes - 1);
    double sum = warp.rank == 0 ? 0.0 : before;
    int found = all, last = -1;  // the first level whose running sum exceeds the target; the last of positive mass
#pragma unroll
    for (int i = 0; i < lane_levels; ++i) {
      if (!(mass[i] > 0)) continue;
      sum += static_cast<double>(mass[i]);
      if (target < sum && found == all) found = first + i;
      last = first + i;
    }
    found = warp.min(found);
    last = warp.max(last);
    return static_cast<std::uint8_t>(found < all ? found : last < 0 ? 0 : last);
  }

 private:
  // Logarithms of probabilities of levels under a mixture, as cpu/logistic_mixture.h's level_log_probs.
  __device__ void own_log_probs(const float* unit, int first, float (&x)[lane_levels]) const {
    float top = -infinity, sum[lane_levels] = {};
    for (std::int64_t k = 0; k < mixtures; ++k) top = unit[k] > top ? unit[k] : top;
    double total = 0;
    for (std::int64_t k = 0; k < mixtures; ++k) {
      const float weight = exp(unit[k] - top), mean = unit[mixtures + k], log_scale = unit[2 * mixtures + k];
      total += static_cast<double>(weight);
#pragma unroll
      for (int i = 0; i < lane_levels; ++i) {
        const bool is_first = first + i == 0, is_last = first + i >= levels - 1;
        const Edges e(levels, first + i, mean, log_scale);
        const float below = is_first ? 1.0f : logistic(-e.lower), above = is_last ? 1.0f : logistic(e.upper);
        const float inside = is_first || is_last ? 1.0f : one_minus_exp_minus(e.width);
        sum[i] = fmaf(weight, below * above * inside, sum[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < lane_levels; ++i) {
      x[i] = first + i < levels ? log(sum[i] * static_cast<float>(1 / total)) : -infinity;
    }
  }
};

}  // namespace gencore::cuda
