// The threads of the blocks of a cluster as fibers of one CPU thread, and the barriers between them.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "cuda emulation: %s\n", what);
  std::abort();
}

// A place to switch to: its registers, and its stack.
struct Context {
  ucontext_t registers;
  void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

#if defined(__SANITIZE_ADDRESS__)
inline void before_switch(Context& from, const Context& to, bool for_good) {
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
}
inline void after_switch(Context& here, Context* host) {
  const void* bottom;
  std::size_t bytes;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &bytes);
  if (host != nullptr) {  // the host's stack is known once somebody has left it
    host->stack = const_cast<void*>(bottom);
    host->stack_bytes = bytes;
  }
}
#else
inline void before_switch(Context&, const Context&, bool) {}
inline void after_switch(Context&, Context*) {}
#endif

struct Fiber : Context {
  bool done = false;
  std::size_t barriers = 0, cluster_barriers = 0;  // of its block and of the cluster, that it has come to
};

// One warp's exchanges and barrier.
struct Warp {
  unsigned arrived = 0;
  std::size_t generation = 0;
  static constexpr std::size_t value_bytes = 32;  // of one lane, at most
  alignas(8) unsigned char values[2][value_bytes * 32];
};

// One block of threads.
struct Block {
  std::vector<Warp> warps;
  unsigned arrived = 0, alive = 0;
  std::size_t generation = 0;               // barriers that it has passed
  bool begun = false;                       // some thread of it has
  std::unique_ptr<unsigned char[]> shared;  // dynamic shared memory, of just the size that the launch asked for
};

// The blocks that are running, on one CPU thread: a cluster, mostly of one.
struct Cluster {
  Context host;
  std::vector<std::unique_ptr<Fiber>> fibers;  // block after block
  std::vector<Block> blocks;
  const std::function<void()>* body = nullptr;
  unsigned threads = 0, size = 1;  // of a block; of the cluster
  unsigned first = 0;              // index of its first block
  unsigned current = 0, alive = 0;
  unsigned arrived = 0;
  std::size_t generation = 0, turns_without_progress = 0;
  bool descending = false, entered = false;

  unsigned rank() const { return current / threads; }
  unsigned fiber_count() const { return threads * size; }
};

inline Cluster& cluster() {
  static thread_local Cluster c;
  return c;
}
inline Block& block() { return cluster().blocks[cluster().rank()]; }

inline unsigned thread_index() { return cluster().current % cluster().threads; }
inline unsigned block_index() { return cluster().first + cluster().rank(); }
inline unsigned block_rank() { return cluster().rank(); }
inline unsigned char* dynamic_shared() { return block().shared.get(); }
inline unsigned lane() { return thread_index() % 32; }

// Where block `rank` of the cluster has what this one has at `mine`. There is no such place before it begins or after it
// ended.
inline void* shared_of(const void* mine, unsigned rank) {
  const Cluster& c = cluster();
  if (rank >= c.size) fail("a block that the cluster does not have");
  if (!c.blocks[rank].begun || c.blocks[rank].alive == 0) fail("shared memory of a block that is not running");
  return c.blocks[rank].shared.get() + (static_cast<const unsigned char*>(mine) - dynamic_shared());
}

// The fiber after the current one, in order, of fibers first to end - 1 for which wanted(fiber); the current one if there
// is no other.
template <class Wanted>
unsigned next_of(const Cluster& c, unsigned first, unsigned end, const Wanted& wanted) {
  unsigned i = c.current;
  do {
    i = c.descending ? (i == first ? end - 1 : i - 1) : (i + 1 == end ? first : i + 1);
  } while (i != c.current && !wanted(*c.fibers[i]));
  return i;
}

// A warp keeps its turn until all of its lanes wait for the block or the cluster, so that it comes as far as the next
// barrier before another warp begins: in one of both orders, whatever two warps do between barriers happens the wrong way
// round.
inline unsigned next_alive(const Cluster& c) {
  const unsigned begin = c.rank() * c.threads, warp = begin + (c.current - begin) / 32 * 32,
                 end = warp + 32 < begin + c.threads ? warp + 32 : begin + c.threads;
  const std::size_t passed = c.blocks[c.rank()].generation;
  const auto goes_on = [&](const Fiber& f) {
    return !f.done && f.barriers <= passed && f.cluster_barriers <= c.generation;
  };
  const unsigned lane = next_of(c, warp, end, goes_on);
  if (goes_on(*c.fibers[lane])) return lane;
  return next_of(c, 0, c.fiber_count(), [](const Fiber& f) { return !f.done; });
}

// The others' turn.
inline void yield() {
  Cluster& c = cluster();
  if (++c.turns_without_progress > 4 * std::size_t{c.fiber_count()} + 64) {
    fail("threads wait for each other: a barrier or shuffle that not all of them reach");
  }
  Fiber& from = *c.fibers[c.current];
  c.current = next_alive(c);
  Fiber& to = *c.fibers[c.current];
  if (&from == &to) return;
  before_switch(from, to, false);
  swapcontext(&from.registers, &to.registers);
  after_switch(from, nullptr);
}

// Waits until `count` threads have come.
inline void barrier(unsigned& arrived, std::size_t& generation, unsigned count) {
  const std::size_t mine = generation;
  if (++arrived == count) {
    arrived = 0;
    ++generation;
    cluster().turns_without_progress = 0;
    return;
  }
  while (generation == mine) yield();
}

inline void block_barrier() {
  Cluster& c = cluster();
  Block& b = block();
  c.fibers[c.current]->barriers = b.generation + 1;
  barrier(b.arrived, b.generation, c.threads);
}

inline void cluster_barrier() {
  Cluster& c = cluster();
  c.fibers[c.current]->cluster_barriers = c.generation + 1;
  barrier(c.arrived, c.generation, c.fiber_count());
}

inline Warp& warp() { return block().warps[thread_index() / 32]; }

inline void warp_barrier() {
  const unsigned rest = cluster().threads - thread_index() / 32 * 32;
  barrier(warp().arrived, warp().generation, rest < 32 ? rest : 32);
}

// Where the lanes of this warp put their values next.
inline unsigned char* next_exchange() { return warp().values[warp().generation % 2]; }

inline void fiber_main() {
  Cluster& c = cluster();
  after_switch(*c.fibers[c.current], c.entered ? nullptr : &c.host);
  c.entered = true;
  block().begun = true;
  (*c.body)();
  Fiber& self = *c.fibers[c.current];
  self.done = true;
  c.turns_without_progress = 0;
  --block().alive;
  if (--c.alive == 0) {
    before_switch(self, c.host, true);
    setcontext(&c.host.registers);
  }
  c.current = next_alive(c);
  Fiber& to = *c.fibers[c.current];
  before_switch(self, to, true);
  setcontext(&to.registers);
}

inline void make_fibers(Cluster& c, unsigned threads, unsigned size) {
  constexpr std::size_t stack_bytes = std::size_t{1} << 18;
  c.threads = threads;
  c.size = size;
  while (c.fibers.size() < c.fiber_count()) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                        0);
    if (fiber->stack == MAP_FAILED) fail("no memory for stacks");
    fiber->stack_bytes = stack_bytes;
    c.fibers.push_back(std::move(fiber));
  }
}

// Memory that only kernels may touch: outside of them, it is as if it were on another chip.
struct Guarded {
  void* first = nullptr;
  std::size_t bytes = 0;
  void open(bool to_kernels) const {
    if (bytes > 0) mprotect(first, bytes, to_kernels ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
};
inline Guarded guarded;

// Ready to begin. A function of its own: compilers think that getcontext may return twice.
__attribute__((noinline)) inline void prepare(Fiber& f) {
  f.done = false;
  f.barriers = f.cluster_barriers = 0;
  f.fake_stack = nullptr;
  getcontext(&f.registers);
  f.registers.uc_stack.ss_sp = f.stack;
  f.registers.uc_stack.ss_size = f.stack_bytes;
  f.registers.uc_link = nullptr;
  makecontext(&f.registers, fiber_main, 0);
}

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t shared_margin = 0;  // the sanitizer sees the access itself
#else
constexpr std::size_t shared_margin = 64;
#endif

inline void make_blocks(Cluster& c, std::size_t shared_bytes) {
  c.blocks.clear();
  for (unsigned i = 0; i < c.size; ++i) {
    Block& b = c.blocks.emplace_back();
    b.warps.assign((c.threads + 31) / 32, Warp{});
    b.alive = c.threads;
    b.shared.reset(new unsigned char[shared_bytes + shared_margin]);
    std::memset(b.shared.get(), 0xA5, shared_bytes + shared_margin);
  }
}

// The threads of one cluster, from the first to the end of the last.
__attribute__((noinline)) inline void run_cluster(Cluster& c) {
  for (unsigned i = 0; i < c.fiber_count(); ++i) prepare(*c.fibers[i]);
  c.alive = c.fiber_count();
  c.arrived = 0;
  c.generation = 0;
  c.entered = false;
  c.turns_without_progress = 0;
  c.current = c.descending ? c.fiber_count() - 1 : 0;
  before_switch(c.host, *c.fibers[c.current], false);
  swapcontext(&c.host.registers, &c.fibers[c.current]->registers);
  after_switch(c.host, nullptr);
  unsigned waiting = c.arrived;
  for (const Block& b : c.blocks) waiting += b.arrived;
  if (waiting != 0) fail("threads ended while others waited at a barrier");
}

// body() by every thread of every block, of which `cluster_size` at a time run together.
inline void run_grid(unsigned blocks, unsigned threads, unsigned cluster_size, std::size_t shared_bytes,
                     const std::function<void()>& body) {
  Cluster& c = cluster();
  const char* order = std::getenv("GENCORE_EMULATION_ORDER");
  c.descending = order != nullptr && std::strcmp(order, "descending") == 0;
  c.body = &body;
  make_fibers(c, threads, cluster_size);
  guarded.open(true);
  for (c.first = 0; c.first < blocks; c.first += cluster_size) {
    make_blocks(c, shared_bytes);
    run_cluster(c);
    for (const Block& b : c.blocks) {
      for (std::size_t i = 0; i < shared_margin; ++i) {
        if (b.shared[shared_bytes + i] != 0xA5) fail("a block wrote beyond its dynamic shared memory");
      }
    }
  }
  guarded.open(false);
}

}  // namespace emulation
