// The door to the CUDA kernels: their dispatch table, and what there is to say of devices.
#include <cuda_runtime.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "gencore/cuda.h"
#include "gencore/error.h"
#include "gencore/runtime.h"
#include "launch.cuh"
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

// The devices' memory pools (pool_of).
struct Pools {
  std::mutex mutex;
  std::map<int, cudaMemPool_t> by_device;
};
Pools& pools() {
  static Pools* const all = new Pools;  // never destroyed: kernels may run while statics die
  return *all;
}

void release() {
  Pools& known = pools();
  const std::lock_guard<std::mutex> lock(known.mutex);
  for (const auto& [device, pool] : known.by_device) {
    check_cuda("gencore.release_scratch", "giving back the memory of a pool", cudaMemPoolTrimTo(pool, 0));
  }
}

runtime::Table build_table() {
  runtime::Table table;
  fill_sample(table);
  fill_sample_reparam(table);
  fill_sample_relaxed(table);
  fill_dense(table);
  fill_dense_loss(table);
  fill_rbm(table);
  fill_rbm_layer(table);
  fill_rbm_ais(table);
  fill_rbm_partition(table);
  fill_optim(table);
  fill_rbm_cd(table);
  fill_logistic_mixture(table);
  fill_conv(table);
  fill_conv_weight(table);
  fill_masked_linear(table);
  fill_masked_sample(table);
  fill_nade(table);
  fill_nade_vjp(table);
  fill_pixel_stack(table);
  fill_pixels(table);
  fill_recurrent(table);
  fill_recurrent_vjp(table);
  table.device_of = device_of;
  table.release = release;
  return table;
}

// 13020 -> 13.2
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int current_device(const char* op) {
  int device = 0;
  check_cuda(op, "finding the current device", cudaGetDevice(&device));
  return device;
}

// The current device's pool, which keeps what it has until release() is called. The default pool would hand all of it back
// at every wait.
cudaMemPool_t pool_of(const char* op) {
  const int device = current_device(op);
  Pools& known = pools();
  const std::lock_guard<std::mutex> lock(known.mutex);
  const auto found = known.by_device.find(device);
  if (found != known.by_device.end()) return found->second;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, device};
  cudaMemPool_t pool = nullptr;
  check_cuda(op, "making a memory pool", cudaMemPoolCreate(&pool, &properties));
  unsigned long long all = ~0ull;
  check_cuda(op, "keeping the memory of a pool", cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
  return known.by_device[device] = pool;
}

Clusters clusters_of(bool device_has_them) {
  const char* wanted = std::getenv("GENCORE_CUDA_CLUSTERS");
  const std::string text = wanted == nullptr ? "" : wanted;
  if (!text.empty() && text != "0" && text != "1") {
    check::fail("gencore", "GENCORE_CUDA_CLUSTERS", "to be 0 or 1", "'" + text + "'");
  }
  if (!device_has_them || text == "0") return Clusters::never;
  return text == "1" ? Clusters::always : Clusters::where_faster;
}

}  // namespace

Limits limits_of(const char* op, Device device) {
  const CurrentDevice current(op, device.index);
  const int index = current_device(op);
  int multiprocessors = 0, clusters = 0;
  check_cuda(op, "asking about the device",
             cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index));
  check_cuda(op, "asking about the device", cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, index));
  return {multiprocessors, clusters_of(clusters != 0)};
}

std::size_t most_shared(const char* op, Device device, const void* kernel) {
  struct Known {
    int own = 0;       // static
    int allowed = -1;  // what was asked for last
  };
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, Known> kernels;  // by device
  const CurrentDevice current(op, device.index);
  const int index = current_device(op);
  int shared = 0;
  check_cuda(op, "asking about the device",
             cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  const std::lock_guard<std::mutex> lock(mutex);
  Known& known = kernels[{index, kernel}];
  if (known.allowed < 0) {
    cudaFuncAttributes attributes = {};
    check_cuda(op, "asking about the kernel", cudaFuncGetAttributes(&attributes, kernel));
    known.own = static_cast<int>(attributes.sharedSizeBytes);
  }
  const int most = shared > known.own ? shared - known.own : 0;
  if (known.allowed != most) {
    check_cuda(op, "asking for shared memory",
               cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    known.allowed = most;
  }
  return static_cast<std::size_t>(most);
}

DeviceScratch::DeviceScratch(const char* op, Device device, void* stream, std::size_t bytes)
    : current_(op, device.index), stream_(static_cast<cudaStream_t>(stream)), size_(bytes) {
  if (bytes == 0) return;
  void* memory = nullptr;
  check_cuda(op, "taking scratch memory", cudaMallocFromPoolAsync(&memory, bytes, pool_of(op), stream_));
  base_ = static_cast<unsigned char*>(memory);
}

DeviceScratch::~DeviceScratch() {
  if (base_ != nullptr) cudaFreeAsync(base_, stream_);
}

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
