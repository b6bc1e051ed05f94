// The door to the CUDA kernels: their dispatch table, and what there is to say of devices.
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "gencore/cuda.h"
#include "gencore/runtime.h"
#include "table.h"

namespace gencore::cuda {
namespace {

// The device that holds this memory. Asking is no wait.
int device_of(const void* data) {
  cudaPointerAttributes attributes = {};
  if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
    cudaGetLastError();
    return -1;
  }
  return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged ? attributes.device : -1;
}

runtime::Table build_table() {
  runtime::Table table;
  fill_sample(table);
  fill_sample_reparam(table);
  fill_sample_relaxed(table);
  table.device_of = device_of;
  return table;
}

// 13020 -> 13.2
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

void load() {
  if (std::string(version()) != GENCORE_VERSION) {
    throw std::runtime_error(
        std::string("gencore: the CUDA kernels are of version " GENCORE_VERSION ", the library is of version ") +
        version() + ": build both together");
  }
  static const runtime::Table table = build_table();
  runtime::register_cuda_table(&table);
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string describe() {
  int toolkit = 0, driver = 0, count = 0;
  cudaRuntimeGetVersion(&toolkit);
  std::string text = "toolkit " + version_text(toolkit);
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0) text += ", driver for " + version_text(driver);
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return text + ", no device visible (" + cudaGetErrorString(error) + ")";
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties = {};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    text += std::string(i == 0 ? "; " : ", ") + properties.name + " (" + std::to_string(properties.major) + "." +
            std::to_string(properties.minor) + ")";
  }
  return text;
}

}  // namespace gencore::cuda
