// A lambda over the thread pool. The wrapper is in the level's namespace, so nothing of it can be shared across levels.
#pragma once

#include <cstdint>

#include "../runtime/parallel.h"
#include "gencore/view.h"

namespace gencore::GENCORE_LEVEL {

// Lowered at first; tasks raise it together.
struct Flag {
  int raised = 0;
  GENCORE_INLINE void raise() { __atomic_store_n(&raised, 1, __ATOMIC_RELAXED); }
};

template <class Body>
void parallel_for(std::int64_t tasks, const Body& body) {
  runtime::parallel_for(tasks, [](void* context, std::int64_t task) { (*static_cast<const Body*>(context))(task); },
                        const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace gencore::GENCORE_LEVEL
