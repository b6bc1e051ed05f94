// Standard noise from Philox words, as cpu/noise.h has it: of a quad, or of one element.
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

template <class Noise>
__device__ FourVariates to_noise(Noise, const Quad& q, const philox::Block& words) {
  FourVariates v;
#pragma unroll
  for (int w = 0; w < 4; ++w) v.value[w] = q.has(w) ? Noise::of(philox::to_uniform(words.word[w])) : 0.0f;
  return v;
}

// A radius from one word, an angle from another.
__device__ inline void box_muller(std::uint32_t radius_word, std::uint32_t angle_word, float& cosine, float& sine) {
  const float radius = __fsqrt_rn(-2.0f * log(philox::to_uniform(radius_word)));
  cos_sin_turn(philox::to_uniform(angle_word), cosine, sine);
  cosine = radius * cosine;
  sine = radius * sine;
}

// Words 0 and 1 give a radius, 2 and 3 an angle; the elements of words 0 and 1 are cosines, those of 2 and 3 sines.
__device__ inline FourVariates to_noise(NormalNoise, const Quad& q, const philox::Block& words) {
  FourVariates v = {};
#pragma unroll
  for (int w = 0; w < 2; ++w) {
    if (q.has(w) || q.has(w + 2)) box_muller(words.word[w], words.word[w + 2], v.value[w], v.value[w + 2]);
  }
  return v;
}

// The variates of a quad's elements, and anything where it has none.
template <class Noise>
__device__ FourVariates noise_of(const NoiseSource& source, const Quad& q) {
  return to_noise(Noise{}, q, source.block(q.block));
}

// The normal variate of an op's element i: a whole block, of which it uses two words, and a pair, of which it uses one.
// Some 180 instructions, where an element of a quad costs 70.
__device__ inline float normal_at(const NoiseSource& source, std::int64_t i) {
  const std::int64_t element = source.first + i, t = element % 64;
  const philox::Block words = source.block(static_cast<std::uint64_t>(16 * (element / 64) + t % 16));
  const bool second = t % 32 >= 16;
  float cosine, sine;
  box_muller(second ? words.word[1] : words.word[0], second ? words.word[3] : words.word[2], cosine, sine);
  return t < 32 ? cosine : sine;
}

}  // namespace gencore::cuda
