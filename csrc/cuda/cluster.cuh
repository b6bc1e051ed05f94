// Clusters: a few blocks of threads that run at the same time and reach each other's shared memory. Needs compute
// capability 9.0; Limits::clusters says whether to use them.
#pragma once

#include "launch.cuh"

namespace gencore::cuda {

constexpr int cluster_blocks = 8;  // as many as every device with clusters takes

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
