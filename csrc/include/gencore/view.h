// What an op reads and writes: typed, contiguous, row-major memory that somebody else owns.
#pragma once

#include <cstdint>

#if defined(_WIN32)
#define GENCORE_API
#else
#define GENCORE_API __attribute__((visibility("default")))
#endif
// Inline functions that kernel objects may use are never emitted out of line: an object compiled for AVX-512 must not
// leave the linker a copy that an older processor could run.
#if defined(__CUDACC__)
#define GENCORE_INLINE __host__ __device__ inline __attribute__((always_inline))
#else
#define GENCORE_INLINE inline __attribute__((always_inline))
#endif

namespace gencore {

enum class DeviceKind : std::int32_t { cpu = 0, cuda = 1 };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  std::int32_t index = 0;
};

// Binary states (n, units): one byte (bool, uint8) or one float32 of 0/1 per unit.
enum class StateType : std::int32_t { u8 = 0, f32 = 1 };

struct ConstStates {
  const void* data = nullptr;
  std::int64_t shape[2] = {-1, 0};
  StateType type = StateType::u8;
  GENCORE_INLINE bool given() const { return shape[0] >= 0; }
  GENCORE_INLINE std::int64_t size() const { return given() ? shape[0] * shape[1] : 0; }
};

// N-dimensional array, C order. A default-constructed View is absent (an optional argument that was not given).
template <class T, int N>
struct View {
  T* data = nullptr;
  std::int64_t shape[N] = {-1};

  GENCORE_INLINE bool given() const { return shape[0] >= 0; }
  GENCORE_INLINE std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < N; ++i) n *= shape[i];
    return given() ? n : 0;
  }
  GENCORE_INLINE T& operator[](std::int64_t i) const { return data[i]; }
  GENCORE_INLINE T* row(std::int64_t i) const { return data + i * shape[N - 1]; }
  // Where an op takes bytes or floats.
  GENCORE_INLINE operator ConstStates() const {
    static_assert(N == 2 && (sizeof(T) == 1 || sizeof(T) == 4), "states are matrices of bytes or floats");
    return {data, {shape[0], shape[1]}, sizeof(T) == 1 ? StateType::u8 : StateType::f32};
  }
};

template <class T>
using Vector = View<T, 1>;
template <class T>
using Matrix = View<T, 2>;

// An array that says what an op does rather than what it is done to: in the host's memory, wherever the op's other arrays
// are, so that check() may read it and a launch can be planned by it.
template <class T, int N>
struct HostView : View<T, N> {};
template <class T>
using HostMatrix = HostView<T, 2>;

// Several arrays, each as one row of its elements. The Views belong to the caller, as what they show does.
template <class T>
struct VectorList {
  const Vector<T>* data = nullptr;
  std::int64_t count = -1;

  GENCORE_INLINE bool given() const { return count >= 0; }
  GENCORE_INLINE const Vector<T>& operator[](std::int64_t k) const { return data[k]; }
};

struct States {
  void* data = nullptr;
  std::int64_t shape[2] = {-1, 0};
  StateType type = StateType::u8;
  GENCORE_INLINE bool given() const { return shape[0] >= 0; }
  GENCORE_INLINE operator ConstStates() const { return {data, {shape[0], shape[1]}, type}; }
};

}  // namespace gencore
