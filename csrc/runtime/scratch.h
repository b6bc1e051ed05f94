// Scratch memory for kernels: 64-byte aligned, kept for the next call, so that a training step pays no page faults.
#pragma once

#include <cstddef>

#include "gencore/view.h"

namespace gencore::runtime {

void* acquire_scratch(std::size_t bytes);
void return_scratch(void* memory, std::size_t bytes);
void release_kept_scratch();  // the host's; release_scratch() that of devices too

// Owns one block until the end of its scope. carve<T>(n) hands out consecutive, 64-byte aligned parts of it.
class Scratch {
 public:
  GENCORE_INLINE explicit Scratch(std::size_t bytes)
      : bytes_(bytes), base_(static_cast<char*>(acquire_scratch(bytes))) {}
  GENCORE_INLINE ~Scratch() { return_scratch(base_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  GENCORE_INLINE T* carve(std::size_t n) {
    T* part = reinterpret_cast<T*>(base_ + used_);
    if (used_ + n * sizeof(T) > bytes_) __builtin_trap();  // sizing the block too small is a bug of ours
    used_ = (used_ + n * sizeof(T) + 63) / 64 * 64;
    return part;
  }

 private:
  std::size_t bytes_, used_ = 0;
  char* base_;
};

}  // namespace gencore::runtime
