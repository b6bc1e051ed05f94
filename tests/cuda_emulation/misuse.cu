// Kernels that are wrong on purpose: does the emulation notice? Usage: misuse KIND.
#include <cuda_runtime.h>

#include <cstring>
#include <string>

__global__ void sums(int* out) {
  __shared__ int value[64];
  value[threadIdx.x] = 1 + static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = value[63 - threadIdx.x];
}

__global__ void without_barrier(int* out) {
  __shared__ int value[64];
  value[threadIdx.x] = 1 + static_cast<int>(threadIdx.x);
  out[threadIdx.x] = value[63 - threadIdx.x];
}

__global__ void barrier_of_some(int* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void shuffle_of_some(int* out) {
  out[threadIdx.x] = 1;
  if (threadIdx.x % 2 == 0) return;
  out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1, 2);
}

// Given 64 ints of dynamic shared memory.
__global__ void dynamic_sums(int* out) {
  int* value = reinterpret_cast<int*>(emulation::dynamic_shared());
  value[threadIdx.x] = 1 + static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = value[63 - threadIdx.x];
}

__global__ void beyond_shared(int* out) {
  reinterpret_cast<int*>(emulation::dynamic_shared())[64] = 1;
  out[threadIdx.x] = 1;
}

int main(int, char** arguments) {
  const std::string kind = arguments[1];
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(kind == "too_many_threads" ? 2048 : 64);
  config.dynamicSmemBytes = kind == "too_much_shared" ? 64 << 10 : 64 * sizeof(int);
  int out[64] = {};
  const auto kernel = kind == "without_barrier"   ? without_barrier
                      : kind == "barrier_of_some" ? barrier_of_some
                      : kind == "shuffle_of_some" ? shuffle_of_some
                      : kind == "dynamic_sums"    ? dynamic_sums
                      : kind == "beyond_shared"   ? beyond_shared
                                                  : sums;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, out);
  if (error != cudaSuccess) std::puts(cudaGetErrorString(error));
  for (int i = 0; i < 64; ++i) {
    if (error == cudaSuccess && out[i] != 64 - i) return std::puts("wrong"), 1;
  }
  return error == cudaSuccess ? std::puts("right"), 0 : 2;
}
