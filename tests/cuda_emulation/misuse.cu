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

// Blocks of 32 of 64 threads in clusters of 2, given 32 ints of dynamic shared memory each: each block has its numbers
// from the other's memory.
int* own_part() { return reinterpret_cast<int*>(emulation::dynamic_shared()); }
int others_part(unsigned i) {
  return static_cast<int*>(emulation::shared_of(own_part(), 1 - emulation::block_rank()))[i];
}
unsigned grid_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void cluster_sums(int* out) {
  own_part()[threadIdx.x] = 1 + static_cast<int>(grid_index());
  emulation::cluster_barrier();
  out[grid_index()] = others_part(31 - threadIdx.x);
  emulation::cluster_barrier();
}

__global__ void without_cluster_barrier(int* out) {
  own_part()[threadIdx.x] = 0;
  emulation::cluster_barrier();
  own_part()[threadIdx.x] = 1 + static_cast<int>(grid_index());
  __syncthreads();
  out[grid_index()] = others_part(31 - threadIdx.x);
  emulation::cluster_barrier();
}

__global__ void before_others_begin(int* out) { out[grid_index()] = others_part(0); }

__global__ void after_others_ended(int* out) {  // in ascending order: the last block comes to the barrier last
  emulation::cluster_barrier();
  if (emulation::block_rank() == 0) out[grid_index()] = others_part(0);
}

__global__ void cluster_barrier_of_some(int* out) {
  if (emulation::block_rank() == 0) emulation::cluster_barrier();
  out[grid_index()] = 1;
}

int main(int, char** arguments) {
  const std::string kind = arguments[1];
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(kind == "too_many_threads" ? 2048 : 64);
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {kind == "too_large_a_cluster" ? 16u : 2u, 1, 1};
  if (kind.find("cluster") != std::string::npos || kind.find("others") != std::string::npos) {
    config.gridDim = dim3(kind == "too_large_a_cluster" ? 16 : kind == "half_a_cluster" ? 3 : 2);
    config.blockDim = dim3(32);
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  config.dynamicSmemBytes = kind == "too_much_shared" ? 64 << 10 : 64 * sizeof(int);
  int out[64] = {};
  const auto kernel = kind == "without_barrier"           ? without_barrier
                      : kind == "barrier_of_some"         ? barrier_of_some
                      : kind == "shuffle_of_some"         ? shuffle_of_some
                      : kind == "dynamic_sums"            ? dynamic_sums
                      : kind == "beyond_shared"           ? beyond_shared
                      : kind == "cluster_sums"            ? cluster_sums
                      : kind == "without_cluster_barrier" ? without_cluster_barrier
                      : kind == "before_others_begin"     ? before_others_begin
                      : kind == "after_others_ended"      ? after_others_ended
                      : kind == "cluster_barrier_of_some" ? cluster_barrier_of_some
                                                          : sums;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, out);
  if (error != cudaSuccess) std::puts(cudaGetErrorString(error));
  for (int i = 0; i < 64; ++i) {
    if (error == cudaSuccess && out[i] != 64 - i) return std::puts("wrong"), 1;
  }
  return error == cudaSuccess ? std::puts("right"), 0 : 2;
}
