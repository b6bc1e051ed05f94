// One warp's products on (emulated) tensor cores. Usage: products bf16|tf32; reads a (16 x 16), b (16 x 8) and d (16 x 8) as
// float32 from standard input, rounds a and b, and writes d + a b (with tf32, as two products of depth 8).
#include <cstdio>
#include <cstring>

#include "mma.cuh"

using namespace gencore::cuda;

struct Matrices {
  float a[16][16], b[16][8], d[16][8];
};

__device__ unsigned pair(float low, float high) { return round_to_bf16(low) | round_to_bf16(high) << 16; }

__global__ void multiply_bf16(Matrices* m) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  float d[4] = {m->d[g][2 * t], m->d[g][2 * t + 1], m->d[g + 8][2 * t], m->d[g + 8][2 * t + 1]};
  unsigned a[4], b[2];
  for (int i = 0; i < 4; ++i) {
    const float* row = m->a[g + i % 2 * 8] + i / 2 * 8 + 2 * t;
    a[i] = pair(row[0], row[1]);
  }
  for (int i = 0; i < 2; ++i) b[i] = pair(m->b[8 * i + 2 * t][g], m->b[8 * i + 2 * t + 1][g]);
  mma_bf16(d, a, b);
  for (int i = 0; i < 4; ++i) m->d[g + i / 2 * 8][2 * t + i % 2] = d[i];
}

__global__ void multiply_tf32(Matrices* m) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  float d[4] = {m->d[g][2 * t], m->d[g][2 * t + 1], m->d[g + 8][2 * t], m->d[g + 8][2 * t + 1]};
  for (int first = 0; first < 16; first += 8) {
    unsigned a[4], b[2];
    for (int i = 0; i < 4; ++i) a[i] = round_to_tf32(m->a[g + i % 2 * 8][first + t + i / 2 * 4]);
    for (int i = 0; i < 2; ++i) b[i] = round_to_tf32(m->b[first + t + 4 * i][g]);
    mma_tf32(d, a, b);
  }
  for (int i = 0; i < 4; ++i) m->d[g + i / 2 * 8][2 * t + i % 2] = d[i];
}

int main(int, char** arguments) {
  static Matrices m;
  if (std::fread(&m, sizeof m, 1, stdin) != 1) return 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  Matrices* at = &m;
  const bool bf16 = std::strcmp(arguments[1], "bf16") == 0;
  if (cudaLaunchKernelEx(&config, bf16 ? multiply_bf16 : multiply_tf32, at) != cudaSuccess) return 2;
  return std::fwrite(m.d, sizeof m.d, 1, stdout) == 1 ? 0 : 3;
}
