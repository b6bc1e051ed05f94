// A bin of a level under one logistic of a mixture, as cpu/logistic_mixture.h has it.
#pragma once

#include "math.cuh"

namespace gencore::cuda {

constexpr float least_log_scale = -7;  // what is below counts as this

// Distances of the edges of a level's bin from the mean, in scales.
struct Edges {
  float inverse_scale, upper, lower, width;

  __device__ Edges(std::int64_t levels, std::int64_t level, float mean, float log_scale) {
    const float half = 1.0f / static_cast<float>(levels - 1);
    const float middle = fmaf(static_cast<float>(level), 2 * half, -1.0f);
    inverse_scale = exp(-max(least_log_scale, log_scale));
    upper = (middle - mean + half) * inverse_scale;
    lower = (middle - mean - half) * inverse_scale;
    width = 2 * half * inverse_scale;
  }
};

}  // namespace gencore::cuda
