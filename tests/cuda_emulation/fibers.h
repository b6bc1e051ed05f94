// The threads of one block as fibers of one CPU thread, and the barriers between them.
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
  std::size_t barriers = 0;  // of the block that it has come to
};

// One warp's exchanges and barrier.
struct Warp {
  unsigned arrived = 0;
  std::size_t generation = 0;
  static constexpr std::size_t value_bytes = 32;  // of one lane, at most
  alignas(8) unsigned char values[2][value_bytes * 32];
};

// The block that is running, on one CPU thread.
struct Block {
  Context host;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  const std::function<void()>* body = nullptr;
  unsigned threads = 0, current = 0, index = 0, alive = 0;
  unsigned arrived = 0;
  std::size_t generation = 0, turns_without_progress = 0;
  bool descending = false, entered = false;
  std::unique_ptr<unsigned char[]> shared;  // dynamic shared memory, of just the size that the launch asked for
};

inline Block& block() {
  static thread_local Block b;
  return b;
}

inline unsigned thread_index() { return block().current; }
inline unsigned block_index() { return block().index; }
inline unsigned char* dynamic_shared() { return block().shared.get(); }
inline unsigned lane() { return block().current % 32; }

// The fiber after the current one, in order, of threads first to end - 1 for which wanted(fiber); the current one if there
// is no other.
template <class Wanted>
unsigned next_of(const Block& b, unsigned first, unsigned end, const Wanted& wanted) {
  unsigned i = b.current;
  do {
    i = b.descending ? (i == first ? end - 1 : i - 1) : (i + 1 == end ? first : i + 1);
  } while (i != b.current && !wanted(*b.fibers[i]));
  return i;
}

// A warp keeps its turn until all of its lanes wait for the block, so that it comes as far as the next barrier before
// another warp begins: in one of both orders, whatever two warps do between barriers happens the wrong way round.
inline unsigned next_alive(const Block& b) {
  const unsigned warp = b.current / 32 * 32, end = warp + 32 < b.threads ? warp + 32 : b.threads;
  // How many barriers the block has passed is their generation.
  const auto goes_on = [&](const Fiber& f) { return !f.done && f.barriers <= b.generation; };
  const unsigned lane = next_of(b, warp, end, goes_on);
  if (goes_on(*b.fibers[lane])) return lane;
  return next_of(b, 0, b.threads, [](const Fiber& f) { return !f.done; });
}

// The others' turn.
inline void yield() {
  Block& b = block();
  if (++b.turns_without_progress > 4 * std::size_t{b.threads} + 64) {
    fail("threads wait for each other: a barrier or shuffle that not all of them reach");
  }
  Fiber& from = *b.fibers[b.current];
  b.current = next_alive(b);
  Fiber& to = *b.fibers[b.current];
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
    block().turns_without_progress = 0;
    return;
  }
  while (generation == mine) yield();
}

inline void block_barrier() {
  Block& b = block();
  b.fibers[b.current]->barriers = b.generation + 1;
  barrier(b.arrived, b.generation, b.threads);
}

inline Warp& warp() { return block().warps[block().current / 32]; }

inline void warp_barrier() {
  const Block& b = block();
  const unsigned rest = b.threads - b.current / 32 * 32;
  barrier(warp().arrived, warp().generation, rest < 32 ? rest : 32);
}

// Where the lanes of this warp put their values next.
inline unsigned char* next_exchange() { return warp().values[warp().generation % 2]; }

inline void fiber_main() {
  Block& b = block();
  after_switch(*b.fibers[b.current], b.entered ? nullptr : &b.host);
  b.entered = true;
  (*b.body)();
  Fiber& self = *b.fibers[b.current];
  self.done = true;
  b.turns_without_progress = 0;
  if (--b.alive == 0) {
    before_switch(self, b.host, true);
    setcontext(&b.host.registers);
  }
  b.current = next_alive(b);
  Fiber& to = *b.fibers[b.current];
  before_switch(self, to, true);
  setcontext(&to.registers);
}

inline void make_fibers(Block& b, unsigned threads) {
  constexpr std::size_t stack_bytes = std::size_t{1} << 18;
  b.threads = threads;
  while (b.fibers.size() < threads) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                        0);
    if (fiber->stack == MAP_FAILED) fail("no memory for stacks");
    fiber->stack_bytes = stack_bytes;
    b.fibers.push_back(std::move(fiber));
  }
  b.warps.assign((threads + 31) / 32, Warp{});
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
  f.barriers = 0;
  f.fake_stack = nullptr;
  getcontext(&f.registers);
  f.registers.uc_stack.ss_sp = f.stack;
  f.registers.uc_stack.ss_size = f.stack_bytes;
  f.registers.uc_link = nullptr;
  makecontext(&f.registers, fiber_main, 0);
}

// The threads of one block, from the first to the end of the last.
__attribute__((noinline)) inline void run_block(Block& b) {
  for (unsigned i = 0; i < b.threads; ++i) prepare(*b.fibers[i]);
  b.alive = b.threads;
  b.arrived = 0;
  b.entered = false;
  b.turns_without_progress = 0;
  b.current = b.descending ? b.threads - 1 : 0;
  before_switch(b.host, *b.fibers[b.current], false);
  swapcontext(&b.host.registers, &b.fibers[b.current]->registers);
  after_switch(b.host, nullptr);
  if (b.arrived != 0) fail("threads ended while others waited at a barrier");
}

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t shared_margin = 0;  // the sanitizer sees the access itself
#else
constexpr std::size_t shared_margin = 64;
#endif

// body() by every thread of every block.
inline void run_grid(unsigned blocks, unsigned threads, std::size_t shared_bytes, const std::function<void()>& body) {
  Block& b = block();
  const char* order = std::getenv("GENCORE_EMULATION_ORDER");
  b.descending = order != nullptr && std::strcmp(order, "descending") == 0;
  b.body = &body;
  make_fibers(b, threads);
  guarded.open(true);
  for (b.index = 0; b.index < blocks; ++b.index) {
    b.shared.reset(new unsigned char[shared_bytes + shared_margin]);
    std::memset(b.shared.get(), 0xA5, shared_bytes + shared_margin);
    run_block(b);
    for (std::size_t i = 0; i < shared_margin; ++i) {
      if (b.shared[shared_bytes + i] != 0xA5) fail("a block wrote beyond its dynamic shared memory");
    }
  }
  guarded.open(false);
}

}  // namespace emulation
