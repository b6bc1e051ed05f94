// CUDA on the CPU, enough to run the kernels of csrc/cuda in tests: the .cu files compile as C++ where this folder comes
// before the toolkit's. Threads of a block are fibers that take turns at barriers and shuffles; blocks run one after the
// other, those of a cluster together; device memory is the process's own.
//
// What it sees that a device may not: accesses out of bounds and undefined behaviour (with the sanitizers), barriers and
// shuffles that not every thread reaches, launches that no device would take. Fibers run in ascending or descending
// order (GENCORE_EMULATION_ORDER=descending): a missing barrier shows as a difference between the two.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <type_traits>
#include <utility>

#include "fibers.h"

#define __host__
#define __device__
#define __global__
#define __shared__ static thread_local
#define __launch_bounds__(...)

// --- types -----------------------------------------------------------------------------------------------------------

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
typedef struct emulated_stream* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidDevice = 101 };
enum cudaMemoryType { cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2, cudaMemoryTypeManaged = 3 };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct cudaDeviceProp {
  char name[256];
  int major, minor;
};
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
union cudaLaunchAttributeValue {
  struct {
    unsigned x, y, z;
  } clusterDim;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrClusterLaunch = 120
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaFuncAttributes {
  std::size_t sharedSizeBytes;
};
enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
struct cudaMemLocation {
  cudaMemLocationType type;
  int id;
};
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  cudaMemLocation location;
};
struct emulated_pool {
  std::size_t in_use = 0, held = 0;  // bytes that callers have; that the pool has taken
};
typedef emulated_pool* cudaMemPool_t;

inline thread_local dim3 blockDim;  // of the launch that is running

// --- the host's side -------------------------------------------------------------------------------------------------

namespace emulation {
constexpr int devices = 2;
inline thread_local int current_device = 0;
inline thread_local int launch_device = -1;  // of the last launch, as its stream and its clusters' size and number
inline thread_local const void* launch_stream = nullptr;
inline thread_local unsigned launch_cluster = 0, launch_clusters = 0;
inline thread_local std::size_t launch_allowed = 0;  // dynamic shared memory that its kernel might have had
}  // namespace emulation

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaSuccess              ? "cudaSuccess"
         : e == cudaErrorInvalidDevice ? "cudaErrorInvalidDevice"
                                       : "cudaErrorInvalidConfiguration";
}
inline const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess              ? "no error"
         : e == cudaErrorInvalidDevice ? "invalid device ordinal"
                                       : "invalid configuration argument";
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = emulation::current_device;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulation::devices) return cudaErrorInvalidDevice;
  emulation::current_device = device;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = emulation::devices;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated", 9, 0};
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

namespace emulation {
inline int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}
inline std::size_t shared_limit() { return static_cast<std::size_t>(setting("GENCORE_EMULATION_SHARED", 227 << 10)); }
// Which kernels have __shared__ arrays, the emulation does not know: on device 1 all do.
inline std::size_t static_shared() { return current_device == 1 ? 20000 : 0; }
inline int multiprocessors() { return setting("GENCORE_EMULATION_MULTIPROCESSORS", 4); }
// Clusters that run at once. Devices so small that not even one fits have one all the same, unless the setting says 0.
inline int clusters_at_once() {
  const int whole = multiprocessors() / 8;
  return setting("GENCORE_EMULATION_CLUSTERS", whole > 1 ? whole : 1);
}

// What all threads of the process share. Never destroyed, as on a device: kernels may run while statics die.
struct Shared {
  std::mutex mutex;
  std::map<std::pair<int, const void*>, std::size_t> allowed;  // dynamic shared memory that a device's kernels may have
  std::map<void*, std::pair<cudaMemPool_t, std::size_t>> taken;
  std::size_t held = 0;  // by all pools
};
inline Shared& shared() {
  static Shared* const all = new Shared;
  return *all;
}
inline std::size_t allowed_of(const void* kernel) {
  const std::lock_guard<std::mutex> lock(shared().mutex);
  const auto asked = shared().allowed.find({current_device, kernel});
  return asked != shared().allowed.end() ? asked->second : (std::size_t{48} << 10) - static_shared();
}
}  // namespace emulation

// Few multiprocessors, so that small batches count as large ones.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? emulation::multiprocessors()
           : attribute == cudaDevAttrClusterLaunch     ? 1
                                                       : static_cast<int>(emulation::shared_limit());
  return cudaSuccess;
}
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {emulation::static_shared()};
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  const std::size_t wanted = static_cast<std::size_t>(bytes);
  if (wanted + emulation::static_shared() > emulation::shared_limit()) return cudaErrorInvalidConfiguration;
  const std::lock_guard<std::mutex> lock(emulation::shared().mutex);
  emulation::shared().allowed[{emulation::current_device, kernel}] = wanted;
  return cudaSuccess;
}
inline cudaError_t cudaOccupancyMaxActiveClusters(int* count, const void* kernel, const cudaLaunchConfig_t* config) {
  *count = emulation::clusters_at_once();
  return config->dynamicSmemBytes > emulation::allowed_of(kernel) ? cudaErrorInvalidConfiguration : cudaSuccess;
}

// Kernels run when they are launched, so memory in stream order is memory. It holds rubbish at first. What is returned to a
// pool is counted as held until it is trimmed.
inline cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  *pool = new emulated_pool;
  return cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
inline cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(emulation::shared().mutex);
  const std::size_t kept = pool->in_use > bytes ? pool->in_use : bytes;
  if (pool->held > kept) {
    emulation::shared().held -= pool->held - kept;
    pool->held = kept;
  }
  return cudaSuccess;
}
inline cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t pool, cudaStream_t) {
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xA5, bytes);
  const std::lock_guard<std::mutex> lock(emulation::shared().mutex);
  emulation::shared().taken[*memory] = {pool, bytes};
  pool->in_use += bytes;
  if (pool->in_use > pool->held) {
    emulation::shared().held += pool->in_use - pool->held;
    pool->held = pool->in_use;
  }
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  {
    const std::lock_guard<std::mutex> lock(emulation::shared().mutex);
    const auto taken = emulation::shared().taken.find(memory);
    taken->second.first->in_use -= taken->second.second;
    emulation::shared().taken.erase(taken);
  }
  std::free(memory);
  return cudaSuccess;
}

// Memory is the process's own: device 0 has it all, but for what GENCORE_EMULATION_DEVICE_1 ("first:end") says.
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  const char* range = std::getenv("GENCORE_EMULATION_DEVICE_1");
  std::uintptr_t first = 0, end = 0;
  if (range != nullptr) {
    char* rest = nullptr;
    first = std::strtoull(range, &rest, 10);
    end = std::strtoull(rest + 1, nullptr, 10);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  *attributes = {cudaMemoryTypeDevice, address >= first && address < end ? 1 : 0};
  return cudaSuccess;
}

// For the tests.
extern "C" {
__attribute__((used, visibility("default"))) inline int emulation_launch_device() { return emulation::launch_device; }
__attribute__((used, visibility("default"))) inline unsigned emulation_launch_cluster() {
  return emulation::launch_cluster;
}
__attribute__((used, visibility("default"))) inline unsigned emulation_launch_clusters() {
  return emulation::launch_clusters;
}
__attribute__((used, visibility("default"))) inline std::size_t emulation_launch_allowed() {
  return emulation::launch_allowed;
}
__attribute__((used, visibility("default"))) inline std::size_t emulation_pools_hold() {
  const std::lock_guard<std::mutex> lock(emulation::shared().mutex);
  return emulation::shared().held;
}
// Whole pages that the host may not touch from now on; none for 0 bytes.
__attribute__((used, visibility("default"))) inline void emulation_guard(void* first, std::size_t bytes) {
  emulation::guarded.open(true);
  emulation::guarded = {first, bytes};
  emulation::guarded.open(false);
}
__attribute__((used, visibility("default"))) inline const void* emulation_launch_stream() {
  return emulation::launch_stream;
}
}

namespace emulation {
inline dim3 cluster_of(const cudaLaunchConfig_t& config) {
  dim3 size(1);
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const auto& given = config.attrs[i].val.clusterDim;
    if (config.attrs[i].id == cudaLaunchAttributeClusterDimension) size = dim3(given.x, given.y, given.z);
  }
  return size;
}
}  // namespace emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const dim3 cluster = emulation::cluster_of(*config);
  const bool valid = grid.x >= 1 && grid.x <= 0x7FFFFFFFu && grid.y == 1 && grid.z == 1 && block.x >= 1 &&
                     block.x <= 1024 && block.y == 1 && block.z == 1 && cluster.x >= 1 && cluster.x <= 8 &&
                     cluster.y == 1 && cluster.z == 1 && grid.x % cluster.x == 0;
  if (!valid || (cluster.x > 1 && emulation::clusters_at_once() == 0)) return cudaErrorInvalidConfiguration;
  emulation::launch_allowed = emulation::allowed_of(reinterpret_cast<const void*>(kernel));
  const bool fits = config->dynamicSmemBytes + emulation::static_shared() <= emulation::shared_limit();
  if (!fits || config->dynamicSmemBytes > emulation::launch_allowed) return cudaErrorInvalidConfiguration;
  blockDim = block;
  emulation::launch_device = emulation::current_device;
  emulation::launch_stream = config->stream;
  emulation::launch_cluster = cluster.x;
  emulation::launch_clusters = grid.x / cluster.x;
  emulation::run_grid(grid.x, block.x, cluster.x, config->dynamicSmemBytes, [&] { kernel(Parameters(arguments)...); });
  return cudaSuccess;
}

// --- the kernel's side -----------------------------------------------------------------------------------------------

struct emulated_index {
  unsigned x, y = 0, z = 0;
};
#define threadIdx (emulated_index{emulation::thread_index()})
#define blockIdx (emulated_index{emulation::block_index()})

inline void __syncthreads() { emulation::block_barrier(); }

namespace emulation {

inline void expect_all_lanes(unsigned mask) {
  if (mask != 0xFFFFFFFFu) fail("a shuffle of some lanes only, which is not emulated");
}

// The value that each lane of this warp hands over; there are two sets, so that one barrier an exchange is enough.
template <class T>
struct Exchange {
  const unsigned char* values;
  explicit Exchange(unsigned mask, T value) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= Warp::value_bytes);
    expect_all_lanes(mask);
    unsigned char* mine = next_exchange();
    std::memcpy(mine + Warp::value_bytes * lane(), &value, sizeof value);
    warp_barrier();
    values = mine;
  }
  T of(unsigned from) const {
    T value;
    std::memcpy(&value, values + Warp::value_bytes * from, sizeof value);
    return value;
  }
};

}  // namespace emulation

#include "mma.h"

template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
  return emulation::Exchange<T>(mask, value).of(static_cast<unsigned>(from) % 32);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by) {
  return emulation::Exchange<T>(mask, value).of(emulation::lane() ^ static_cast<unsigned>(by));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by) {
  const unsigned lane = emulation::lane(), step = static_cast<unsigned>(by);
  return emulation::Exchange<T>(mask, value).of(lane >= step ? lane - step : lane);
}
inline unsigned __ballot_sync(unsigned mask, bool one) {
  const emulation::Exchange<bool> all(mask, one);
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= static_cast<unsigned>(all.of(i)) << i;
  return bits;
}

inline void __syncwarp() { emulation::warp_barrier(); }
template <class T>
T __ldg(const T* at) {
  return *at;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
// Rounded down. Sums of two floats are exact in double, or so near to it that they round alike.
inline float __fadd_rd(float a, float b) {
  const double sum = static_cast<double>(a) + static_cast<double>(b);
  const float nearest = static_cast<float>(sum);
  return static_cast<double>(nearest) > sum ? nextafterf(nearest, -INFINITY) : nearest;
}
// Four of the eight bytes of b (above) and a, which the digits of `choice` name.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned choice) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned chosen = 0;
  for (int i = 0; i < 4; ++i) {
    chosen |= static_cast<unsigned>(bytes >> (choice >> 4 * i & 7u) * 8 & 0xFFu) << 8 * i;
  }
  return chosen;
}
inline float __fsqrt_rn(float x) { return sqrtf(x); }
// NaN is 0, and what is too large the nearest int, as on a device.
inline int __float2int_rn(float x) {
  if (std::isnan(x)) return 0;
  return x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? -2147483647 - 1 : static_cast<int>(lrintf(x));
}
