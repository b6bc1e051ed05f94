// The thread pool. Work is cut into tasks by problem size, never by thread count, so results do not depend on it.
#pragma once

#include <cstdint>

namespace gencore::runtime {

using Task = void (*)(void* context, std::int64_t task);

// Runs task(context, 0 .. tasks - 1), in any order, on the caller and the pool. Called from inside a task, or while
// another thread has the pool, it runs them on the caller alone: never a deadlock, never a wait for a stranger.
void parallel_for(std::int64_t tasks, Task task, void* context);

}  // namespace gencore::runtime
