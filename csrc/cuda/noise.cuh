// Standard noise from Philox words, as cpu/noise.h has it.
#pragma once

#include "common.cuh"
#include "math.cuh"

namespace gencore::cuda {

// Each kind turns a uniform u into a variate; normal noise takes two.
struct UniformNoise {
  static __device__ float of(float u) { return u; }
};
struct ExponentialNoise {
  static __device__ float of(float u) { return -log(u); }
};
struct GumbelNoise {
  static __device__ float of(float u) { return -log(-log(u)); }
};
// 1 - u is exact.
struct LogisticNoise {
  static __device__ float of(float u) { return log(u) - log(1.0f - u); }
};
struct LaplaceNoise {
  static __device__ float of(float u) {
    const float tail = log(2.0f * min(u, 1.0f - u));
    return u < 0.5f ? tail : -tail;
  }
};
struct NormalNoise {};

struct FourVariates {
  float value[4];
};

// The variates of a quad. Most threads of a short row need the first alone; the others wait for a longer row's.
template <class Noise>
__device__ FourVariates to_noise(Noise, const philox::Block& words, int count) {
  FourVariates v;
#pragma unroll
  for (int w = 0; w < 4; ++w) v.value[w] = w < count ? Noise::of(philox::to_uniform(words.word[w])) : 0.0f;
  return v;
}

// Box and Muller: words 0 and 1 give a radius, 2 and 3 an angle.
__device__ inline FourVariates to_noise(NormalNoise, const philox::Block& words, int count) {
  FourVariates v = {};
#pragma unroll
  for (int w = 0; w < 2; ++w) {
    if (w >= count) break;
    const float radius = __fsqrt_rn(-2.0f * log(philox::to_uniform(words.word[w])));
    float cosine, sine;
    cos_sin_turn(philox::to_uniform(words.word[w + 2]), cosine, sine);
    v.value[w] = radius * cosine;
    v.value[w + 2] = radius * sine;
  }
  return v;
}

// How many units a quad has.
__device__ inline int count_of(const Quad& q) {
  const std::int64_t rest = q.units - q.unit + 15;
  return rest >= 64 ? 4 : static_cast<int>(rest / 16);
}

// The variates of a quad, `row` being the row of the noise.
template <class Noise>
__device__ FourVariates noise_of(const NoiseSource& source, const Quad& q, std::int64_t row) {
  return to_noise(Noise{}, source.block(row, q.block), count_of(q));
}

}  // namespace gencore::cuda
