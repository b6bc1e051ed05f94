// Drives the thread pool and the scratch store hard enough for ThreadSanitizer and AddressSanitizer to see a mistake:
// every task runs exactly once, whoever calls, from however many threads, nested, with exceptions, and after fork.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gencore/runtime.h"
#include "runtime/parallel.h"
#include "runtime/scratch.h"

namespace {

using gencore::runtime::parallel_for;
using gencore::runtime::Scratch;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "pool_stress: %s\n", what);
  std::abort();
}

template <class F>
void for_each(std::int64_t tasks, const F& body) {
  parallel_for(tasks, [](void* context, std::int64_t task) { (*static_cast<const F*>(context))(task); },
               const_cast<F*>(&body));
}

// Plain ints: two threads on one task, or a caller that returns too early, are data races.
void each_task_runs_once(std::int64_t tasks) {
  std::vector<int> runs(static_cast<std::size_t>(tasks));
  for_each(tasks, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
  for (const int n : runs) require(n == 1, "a task did not run exactly once");
}

void sizes_and_threads() {
  for (int threads = 1; threads <= 6; ++threads) {
    gencore::set_num_threads(threads);
    for (const std::int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
      for (int repeat = 0; repeat < 30; ++repeat) each_task_runs_once(tasks);
    }
  }
}

void sleeping_workers_wake() {
  gencore::set_num_threads(4);
  for (int repeat = 0; repeat < 20; ++repeat) {
    usleep(3000);  // long enough for every worker to fall asleep
    each_task_runs_once(16);
  }
}

void nested() {
  gencore::set_num_threads(4);
  for (int repeat = 0; repeat < 50; ++repeat) {
    std::vector<std::int64_t> sums(9);
    for_each(9, [&](std::int64_t i) {
      for_each(100, [&](std::int64_t j) { sums[static_cast<std::size_t>(i)] += j; });  // on this thread alone
    });
    for (const std::int64_t sum : sums) require(sum == 4950, "a nested loop lost a task");
  }
}

void exceptions() {
  gencore::set_num_threads(4);
  for (int repeat = 0; repeat < 200; ++repeat) {
    bool caught = false;
    try {
      for_each(20, [&](std::int64_t i) {
        if (i % 5 == repeat % 5) throw std::runtime_error("task " + std::to_string(i));
      });
    } catch (const std::runtime_error& error) {
      caught = std::string(error.what()).rfind("task ", 0) == 0;
    }
    require(caught, "an exception did not reach the caller");
    each_task_runs_once(20);
  }
}

void scratch_memory() {
  gencore::set_num_threads(4);
  for (int repeat = 0; repeat < 100; ++repeat) {
    for_each(16, [&](std::int64_t i) {
      const auto n = static_cast<std::size_t>(1000 * (i % 4 + 1));
      Scratch scratch(2 * sizeof(int) * n + 128);
      int *a = scratch.carve<int>(n), *b = scratch.carve<int>(n);
      for (std::size_t k = 0; k < n; ++k) a[k] = b[k] = static_cast<int>(i);
      for (std::size_t k = 0; k < n; ++k) require(a[k] == i && b[k] == i, "two tasks share scratch memory");
    });
    if (repeat % 10 == 0) gencore::runtime::release_kept_scratch();
  }
}

// One caller gets the pool, the others work alone; a fourth changes the number of threads meanwhile.
void many_callers() {
  std::atomic<bool> done{false};
  std::thread setter([&] {
    for (int n = 1; !done.load(); n = n % 5 + 1) {
      gencore::set_num_threads(n);
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([caller] {
      for (int repeat = 0; repeat < 300; ++repeat) {
        each_task_runs_once(1 + (37 * repeat + caller) % 50);
        try {
          for_each(8, [](std::int64_t i) {
            if (i == 3) throw std::runtime_error("3");
          });
          require(false, "an exception was lost");
        } catch (const std::runtime_error&) {
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  done.store(true);
  setter.join();
}

#if !defined(__SANITIZE_THREAD__)  // it cannot follow threads that a forked child starts
// Children are forked while other threads are inside the pool and the scratch store; each must be able to work.
void fork_while_busy() {
  gencore::set_num_threads(3);
  std::atomic<bool> done{false};
  std::thread busy([&] {
    while (!done.load()) {
      for_each(8, [](std::int64_t) { Scratch scratch(4096); });
    }
  });
  for (int repeat = 0; repeat < 40; ++repeat) {
    const pid_t child = fork();
    require(child >= 0, "fork failed");
    if (child == 0) {
      alarm(20);  // a hang becomes a failure
      for_each(8, [](std::int64_t) { Scratch scratch(4096); });
      each_task_runs_once(100);
      _exit(0);
    }
    int status = 0;
    require(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
            "a forked child hung or died");
    each_task_runs_once(10);
  }
  done.store(true);
  busy.join();
}
#endif

}  // namespace

int main() {
  sizes_and_threads();
  sleeping_workers_wake();
  nested();
  exceptions();
  scratch_memory();
  many_callers();
#if !defined(__SANITIZE_THREAD__)
  fork_while_busy();
#endif
  std::puts("pool_stress: passed");
}
