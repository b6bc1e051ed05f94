#include "scratch.h"

#include <pthread.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "gencore/runtime.h"

namespace gencore::runtime {
namespace {

constexpr std::size_t alignment = 64, page = 4096, group_of_pages = 65536, huge_page = std::size_t{2} << 20;
constexpr std::size_t kept_bytes_limit = std::size_t{256} << 20;

struct Block {
  void* memory;
  std::size_t bytes;
};

struct Store {
  std::mutex mutex;
  std::vector<Block> free;
  std::size_t kept = 0;
};

Store& store() {
  static Store* const s = [] {
    auto* created = new Store;  // never destroyed: kernels may run while statics die
    // A child forked while another thread held the lock would never get it.
    pthread_atfork([] { store().mutex.lock(); }, [] { store().mutex.unlock(); }, [] { store().mutex.unlock(); });
    return created;
  }();
  return *s;
}

// Sizes are rounded up so that blocks of slightly different calls serve each other; large ones by a quarter at most.
std::size_t block_bytes(std::size_t bytes) {
  const std::size_t unit = bytes >= 4 * huge_page ? huge_page : bytes >= 4 * group_of_pages ? group_of_pages : page;
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

void* acquire_scratch(std::size_t bytes) {
  bytes = block_bytes(bytes == 0 ? 1 : bytes);
  {
    Store& s = store();
    const std::lock_guard<std::mutex> lock(s.mutex);
    for (std::size_t i = s.free.size(); i-- > 0;) {
      if (s.free[i].bytes != bytes) continue;
      void* memory = s.free[i].memory;
      s.free.erase(s.free.begin() + static_cast<std::ptrdiff_t>(i));
      s.kept -= bytes;
      return memory;
    }
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, bytes >= huge_page ? huge_page : alignment, bytes) != 0) throw std::bad_alloc();
#if defined(__linux__)
  if (bytes >= huge_page) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

void return_scratch(void* memory, std::size_t bytes) {
  bytes = block_bytes(bytes == 0 ? 1 : bytes);
  Store& s = store();
  std::vector<Block> old;  // those that have waited longest make room
  {
    const std::lock_guard<std::mutex> lock(s.mutex);
    s.free.push_back({memory, bytes});
    s.kept += bytes;
    auto end = s.free.begin();
    for (; s.kept > kept_bytes_limit; ++end) s.kept -= end->bytes;
    old.assign(s.free.begin(), end);
    s.free.erase(s.free.begin(), end);
  }
  for (const Block& block : old) std::free(block.memory);
}

void release_kept_scratch() {
  Store& s = store();
  const std::lock_guard<std::mutex> lock(s.mutex);
  for (const Block& block : s.free) std::free(block.memory);
  s.free.clear();
  s.kept = 0;
}

}  // namespace gencore::runtime

void* gencore::take_memory(std::size_t bytes) { return runtime::acquire_scratch(bytes); }
void gencore::give_back_memory(void* memory, std::size_t bytes) { runtime::return_scratch(memory, bytes); }
