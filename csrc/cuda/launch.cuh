// Launching on an op's device and stream, and saying what went wrong in CUDA's own words. Nothing here waits for a device.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "gencore/op.h"

namespace gencore::cuda {

constexpr int block_threads = 256;
constexpr int warp_lanes = 32;
constexpr unsigned all_lanes = 0xFFFFFFFFu;

inline void check_cuda(const char* op, const char* what, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  throw std::runtime_error(std::string(op) + ": CUDA: " + what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

// Makes a device current while in scope. Index -1 is the one that is.
class CurrentDevice {
 public:
  CurrentDevice(const char* op, int index) {
    check_cuda(op, "finding the current device", cudaGetDevice(&before_));
    if (index < 0 || index == before_) return;
    check_cuda(op, "choosing the device", cudaSetDevice(index));
    changed_ = true;
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// How much dynamic shared memory a block of this kernel may have, beside the kernel's static; launches may ask for so much
// from then on. What they may ask for is state of the kernel, which another thread may be launching: it is the same
// number every time.
std::size_t most_shared(const char* op, Device device, const void* kernel);  // runtime.cu
template <class Op, class... Parameters>
std::size_t most_shared(const Op& op, void (*kernel)(Parameters...)) {
  return most_shared(Op::name, op.device, reinterpret_cast<const void*>(kernel));
}

// Clusters of `size` blocks of `threads` threads, with `shared` bytes of dynamic shared memory each, as the runtime takes it.
struct LaunchConfig {
  cudaLaunchConfig_t config = {};

  LaunchConfig(std::int64_t clusters, int size, int threads, std::size_t shared, void* stream) {
    of_clusters_.id = cudaLaunchAttributeClusterDimension;
    of_clusters_.val.clusterDim = {static_cast<unsigned>(size), 1, 1};
    config.gridDim = dim3(static_cast<unsigned>(clusters * size));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared;
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &of_clusters_;
    config.numAttrs = size == 1 ? 0 : 1;
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;

 private:
  cudaLaunchAttribute of_clusters_ = {};
};

// kernel(arguments...) on `clusters` clusters of `size` blocks of `threads` threads, with `shared` bytes of dynamic shared
// memory each.
template <class Op, class... Parameters, class... Arguments>
void launch_clusters(const Op& op, std::int64_t clusters, int size, int threads, std::size_t shared,
                     void (*kernel)(Parameters...), const Arguments&... arguments) {
  if (clusters == 0) return;
  const CurrentDevice current(Op::name, op.device.index);
  if (shared > 0) most_shared(op, kernel);  // allows more than 48 KB
  const LaunchConfig launch(clusters, size, threads, shared, op.stream);
  check_cuda(Op::name, "launching the kernel", cudaLaunchKernelEx(&launch.config, kernel, arguments...));
}

// The same on blocks that know nothing of each other.
template <class Op, class... Parameters, class... Arguments>
void launch_blocks(const Op& op, std::int64_t blocks, int threads, std::size_t shared, void (*kernel)(Parameters...),
                   const Arguments&... arguments) {
  launch_clusters(op, blocks, 1, threads, shared, kernel, arguments...);
}

// kernel(arguments...) on enough blocks for `threads` threads.
template <class Op, class... Parameters, class... Arguments>
void launch(const Op& op, std::int64_t threads, void (*kernel)(Parameters...), const Arguments&... arguments) {
  launch_blocks(op, ceil_div(threads, block_threads), block_threads, 0, kernel, arguments...);
}

// This block's dynamic shared memory.
#if defined(__CUDACC__)
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return bytes;
}
#else
inline unsigned char* dynamic_shared() { return emulation::dynamic_shared(); }
#endif

// Whether kernels whose blocks form clusters (cluster.cuh) run where there is another way: a device must have clusters,
// and GENCORE_CUDA_CLUSTERS, for those who compare the ways, may say 0 (never) or 1 (wherever they can).
enum class Clusters { never, where_faster, always };

// What there is of a device that decides how work is cut.
struct Limits {
  int multiprocessors;
  Clusters clusters;
};
Limits limits_of(const char* op, Device device);  // runtime.cu

// Memory of one call on its device, from a pool of ours, in the order of the op's stream: neither taking nor returning it
// waits for anything, and a stream may be captured into a graph meanwhile. What is returned stays for the next call,
// until release_scratch().
class DeviceScratch {
 public:
  template <class Op>
  DeviceScratch(const Op& op, std::size_t bytes) : DeviceScratch(Op::name, op.device, op.stream, bytes) {}
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;
  ~DeviceScratch();

  // So many bytes hold n elements of a part.
  template <class T>
  static std::size_t bytes(std::int64_t n) {
    return (static_cast<std::size_t>(n) * sizeof(T) + 255) / 256 * 256;
  }
  template <class T>
  T* carve(std::int64_t n) {
    T* part = reinterpret_cast<T*>(base_ + used_);
    used_ += bytes<T>(n);
    if (used_ > size_) __builtin_trap();  // sizing the block too small is a bug of ours
    return part;
  }

 private:
  DeviceScratch(const char* op, Device device, void* stream, std::size_t bytes);

  CurrentDevice current_;
  cudaStream_t stream_;
  std::size_t size_, used_ = 0;
  unsigned char* base_ = nullptr;
};

}  // namespace gencore::cuda
