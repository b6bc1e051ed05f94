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

// kernel(arguments...) on enough blocks for `threads` threads.
template <class Op, class... Parameters, class... Arguments>
void launch(const Op& op, std::int64_t threads, void (*kernel)(Parameters...), const Arguments&... arguments) {
  if (threads == 0) return;
  const CurrentDevice current(Op::name, op.device.index);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(ceil_div(threads, block_threads)));
  config.blockDim = dim3(block_threads);
  config.stream = static_cast<cudaStream_t>(op.stream);
  check_cuda(Op::name, "launching the kernel", cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace gencore::cuda
