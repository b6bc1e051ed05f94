// One job at a time. A job is open from its publication until the caller has run out of tasks; a worker joins an open job,
// takes tasks from a shared counter, and leaves. The caller closes the job and waits only for workers that joined: one
// that wakes late finds it closed and costs nothing.
#include "parallel.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "gencore/error.h"
#include "gencore/runtime.h"

namespace gencore::runtime {
namespace {

constexpr int max_threads = 1024;
// A worker looks for the next job so long before it sleeps: longer than what Python does between two calls of a training
// loop (50 to 250 us, its code and data fetched anew after a large product), short against a scheduler's slice. Waking a
// sleeper costs the caller 30 us and more.
constexpr std::chrono::microseconds patience{300};

thread_local bool inside_task = false;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Waits for the condition, at most so long by the clock: one that was off its core meanwhile gives up at once.
template <class Condition>
bool spin_until(const Condition& condition, std::chrono::microseconds limit) {
  constexpr int looks = 32;  // to one at the clock
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < looks; ++i) {
      if (condition()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return condition();
}

// Where a woken worker runs. Under a hypervisor the kernel takes a halted core for a busy one and puts the worker on the
// core of its waker, where it would wait for milliseconds until load is balanced: measured 4 to 5 ms after a pause of
// 100 ms, 0.3 ms with these two. The caller lets it run for a moment, and it moves away by itself.
int current_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

void move_off(int cpu) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (cpu < 0 || sched_getcpu() != cpu || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(static_cast<std::size_t>(cpu), &others);
  if (CPU_COUNT(&others) == 0) return;
  sched_setaffinity(0, sizeof others, &others);
  sched_setaffinity(0, sizeof allowed, &allowed);
#else
  (void)cpu;
#endif
}

class Pool {
 public:
  // Only one caller at a time; the owner of `busy`.
  void run(std::int64_t tasks, Task task, void* context, int threads) {
    task_ = task;
    context_ = context;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    error_ = nullptr;
    const int workers = start_workers(threads - 1);
    limit_.store(workers, std::memory_order_relaxed);
    state_.store(open_bit, std::memory_order_release);
    ticket_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      caller_cpu_.store(current_cpu(), std::memory_order_relaxed);
      ticket_.notify_all();
      sched_yield();
    }
    work();
    state_.fetch_and(~open_bit, std::memory_order_acq_rel);
    while (state_.load(std::memory_order_acquire) != 0) relax();
    if (error_) std::rethrow_exception(error_);
  }

  std::mutex busy;

 private:
  static constexpr std::uint32_t open_bit = 1u << 31;

  // Grows the pool on demand. Returns how many workers there are, at most `wanted`: fewer threads are no error.
  int start_workers(int wanted) {
    while (started_ < wanted) {
      try {
        std::thread(&Pool::serve, this, started_).detach();
      } catch (const std::system_error&) {
        break;
      }
      ++started_;
    }
    return wanted < started_ ? wanted : started_;
  }

  bool join() {
    std::uint32_t s = state_.load(std::memory_order_acquire);
    while ((s & open_bit) != 0) {
      if (state_.compare_exchange_weak(s, s + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void serve(int index) {
    std::uint32_t seen = 0;
    for (;;) {
      const auto new_ticket = [&] { return ticket_.load(std::memory_order_acquire) != seen; };
      if (!spin_until(new_ticket, patience)) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        ticket_.wait(seen, std::memory_order_seq_cst);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
        move_off(caller_cpu_.load(std::memory_order_relaxed));
        continue;
      }
      seen = ticket_.load(std::memory_order_acquire);
      if (!join()) continue;
      if (index < limit_.load(std::memory_order_relaxed)) work();
      state_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  void work() {
    inside_task = true;
    for (std::int64_t i = next_.fetch_add(1, std::memory_order_relaxed); i < tasks_;
         i = next_.fetch_add(1, std::memory_order_relaxed)) {
      try {
        task_(context_, i);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
        next_.store(tasks_, std::memory_order_relaxed);
      }
    }
    inside_task = false;
  }

  Task task_ = nullptr;
  void* context_ = nullptr;
  std::int64_t tasks_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::atomic<std::uint32_t> state_{0};  // open bit | workers inside
  std::atomic<int> limit_{0};
  std::atomic<std::uint32_t> ticket_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<int> caller_cpu_{-1};
  std::mutex error_mutex_;
  std::exception_ptr error_;
  int started_ = 0;
};

std::atomic<Pool*> the_pool{nullptr};

// A forked child has none of its parent's workers: it starts over with a pool of its own.
void replace_pool_in_child() { the_pool.store(new Pool, std::memory_order_release); }

Pool& pool() {
  static const bool created = [] {
    the_pool.store(new Pool, std::memory_order_release);  // never destroyed: its threads outlive every static
    pthread_atfork(nullptr, nullptr, replace_pool_in_child);
    return true;
  }();
  (void)created;
  return *the_pool.load(std::memory_order_acquire);
}

int affinity_count() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : static_cast<int>(n);
}

// A positive integer, or 0 where the text is none.
int parse_count(const char* text, bool list) {
  char* end = nullptr;
  errno = 0;
  const long n = std::strtol(text, &end, 10);
  while (std::isspace(static_cast<unsigned char>(*end))) ++end;
  const bool whole = *end == '\0' || (list && *end == ',');
  return end != text && errno == 0 && whole && n >= 1 && n <= max_threads ? static_cast<int>(n) : 0;
}

int default_threads() {
  if (const char* own = std::getenv("GENCORE_NUM_THREADS"); own != nullptr && *own != '\0') {
    const int n = parse_count(own, false);
    if (n == 0)
      check::fail("gencore", "GENCORE_NUM_THREADS", "an integer from 1 to 1024", std::string("'") + own + "'");
    return n;
  }
  const int available = affinity_count();
  if (const char* omp = std::getenv("OMP_NUM_THREADS"); omp != nullptr) {
    const int n = parse_count(omp, true);  // somebody else's variable: what we cannot read is ignored
    if (n > 0) return n < available ? n : available;
  }
  return available;
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> n{default_threads()};
  return n;
}

}  // namespace

void parallel_for(std::int64_t tasks, Task task, void* context) {
  const std::int64_t wanted = thread_setting().load(std::memory_order_relaxed);
  const int threads = static_cast<int>(tasks < wanted ? tasks : wanted);
  if (threads > 1 && !inside_task) {
    Pool& p = pool();
    std::unique_lock<std::mutex> lock(p.busy, std::try_to_lock);
    if (lock.owns_lock()) {
      p.run(tasks, task, context, threads);
      return;
    }
  }
  for (std::int64_t i = 0; i < tasks; ++i) task(context, i);
}

}  // namespace gencore::runtime

namespace gencore {

int num_threads() { return runtime::thread_setting().load(std::memory_order_relaxed); }

void set_num_threads(int n) {
  if (n < 1 || n > runtime::max_threads) {
    check::fail("set_num_threads", "n", "an integer from 1 to 1024", std::to_string(n));
  }
  runtime::thread_setting().store(n, std::memory_order_relaxed);
}

}  // namespace gencore

extern "C" {
int gencore_get_num_threads() { return gencore::num_threads(); }
void gencore_set_num_threads(int n) {
  if (n >= 1 && n <= gencore::runtime::max_threads) gencore::set_num_threads(n);
}
}
