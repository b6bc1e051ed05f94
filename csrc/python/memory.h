// Large results in memory that is kept for the next call. What NumPy takes for them from the system is often mapped anew
// each time and costs a page fault every 4 KB, as much as a kernel that is bound by bandwidth.
#pragma once

#include <pybind11/numpy.h>

#include "gencore/runtime.h"

namespace gencore::python {

namespace py = pybind11;

// Python's headers have these two without C linkage up to 3.12.
extern "C" int PyTraceMalloc_Track(unsigned domain, std::uintptr_t data, std::size_t bytes);
extern "C" int PyTraceMalloc_Untrack(unsigned domain, std::uintptr_t data);

// The owner of an array's memory: its base. Known to tracemalloc as what NumPy takes is.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : bytes_(bytes), data_(take(bytes)) {
    PyTraceMalloc_Track(domain, reinterpret_cast<std::uintptr_t>(data_), bytes_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    PyTraceMalloc_Untrack(domain, reinterpret_cast<std::uintptr_t>(data_));
    give_back(data_, bytes_);
  }
  void* data() const { return data_; }

 private:
  static constexpr unsigned domain = 389047;  // NumPy's

#if defined(__SANITIZE_ADDRESS__)  // which shall see what is written beyond the end
  static void* take(std::size_t bytes) { return ::operator new(bytes); }
  static void give_back(void* data, std::size_t) { ::operator delete(data); }
#else
  static void* take(std::size_t bytes) { return take_memory(bytes); }
  static void give_back(void* data, std::size_t bytes) { give_back_memory(data, bytes); }
#endif

  std::size_t bytes_;
  void* data_;
};

// As numpy.empty, for numbers: whatever the memory held before.
inline py::array empty(const std::vector<py::ssize_t>& shape, const py::object& of) {
  const py::dtype dtype = py::dtype::from_args(of);
  auto bytes = static_cast<std::size_t>(dtype.itemsize());
  bool possible = true;
  for (const py::ssize_t n : shape) {
    possible = possible && n >= 0 && !__builtin_mul_overflow(bytes, static_cast<std::size_t>(n), &bytes);
  }
  if (!possible) return py::array(dtype, shape);  // NumPy says what is wrong
  py::object memory;
  try {
    memory = py::cast(std::make_unique<Memory>(bytes));
  } catch (const std::bad_alloc&) {
    return py::array(dtype, shape);  // as it does here, if it has not more luck
  }
  return py::array(dtype, shape, memory.cast<Memory&>().data(), memory);
}

}  // namespace gencore::python
