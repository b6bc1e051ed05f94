// Clusters: a few blocks of threads that run at the same time and reach each other's shared memory. Needs compute
// capability 9.0; Limits::clusters says whether to use them.
#pragma once

#include "launch.cuh"

namespace gencore::cuda {

constexpr int cluster_blocks = 8;  // as many as every device with clusters takes

// How many clusters of this kernel run at once where each block has a multiprocessor to itself, as one that takes `shared`
// bytes, almost all that there are, does. The multiprocessors of a cluster are neighbours, so that some may be left over;
// 0: none runs, on a part of a device for instance.
template <class Op, class... Parameters>
int clusters_at_once(const Op& op, int threads, std::size_t shared, void (*kernel)(Parameters...)) {
  const CurrentDevice current(Op::name, op.device.index);
  const LaunchConfig one(1, cluster_blocks, threads, shared, op.stream);
  int count = 0;
  if (cudaOccupancyMaxActiveClusters(&count, reinterpret_cast<const void*>(kernel), &one.config) == cudaSuccess) {
    return count;
  }
  cudaGetLastError();  // or the next call would report it
  return 0;
}

#if !defined(__CUDACC__)

// Waits for all threads of the cluster, which then see what any of them has written.
inline void cluster_barrier() { emulation::cluster_barrier(); }
inline int cluster_rank() { return static_cast<int>(emulation::block_rank()); }  // of this block in its cluster
// Where block `rank` has what this one has at `mine`, in shared memory: from the first barrier on, and until the last.
template <class T>
T* shared_of(T* mine, int rank) {
  return static_cast<T*>(emulation::shared_of(mine, static_cast<unsigned>(rank)));
}

#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

__device__ inline void cluster_barrier() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}
__device__ inline int cluster_rank() { return static_cast<int>(__clusterRelativeBlockRank()); }
template <class T>
__device__ T* shared_of(T* mine, int rank) {
  return static_cast<T*>(__cluster_map_shared_rank(mine, static_cast<unsigned>(rank)));
}

#else  // compiled for a device without clusters, and never launched there

__device__ inline void cluster_barrier() { __trap(); }
__device__ inline int cluster_rank() { return 0; }
template <class T>
__device__ T* shared_of(T* mine, int) {
  return mine;
}

#endif

}  // namespace gencore::cuda
