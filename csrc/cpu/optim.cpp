// Fused parameter updates.
#include "gencore/optim.h"

#include "../runtime/table.h"
#include "parallel.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using optim::Sgd;

// One vector of the update; Load and Store take all lanes, or the first few.
template <class Load, class Store>
GENCORE_INLINE void sgd_vector(const Sgd& op, std::int64_t i, const Load& load_from, const Store& store_to) {
  const F param = load_from(op.param.data + i);
  F change = fma(splat(-op.weight_decay), param, load_from(op.grad.data + i)) * splat(op.lr);
  if (op.velocity.given()) {
    change = fma(splat(op.momentum), load_from(op.velocity.data + i), change);
    store_to(op.velocity.data + i, change);
  }
  store_to(op.param.data + i, param + change);
}

void sgd(const Sgd& op) {
  constexpr std::int64_t block = 16384;
  const std::int64_t n = op.param.shape[0];
  parallel_for(ceil_div(n, block), [&](std::int64_t task) {
    const std::int64_t end = min_of(n, (task + 1) * block);
    std::int64_t i = task * block;
    for (; i + lanes <= end; i += lanes) {
      sgd_vector(op, i, [](const float* p) { return load(p); }, [](float* p, F v) { store(p, v); });
    }
    const int rest = static_cast<int>(end - i);
    if (rest > 0) {
      sgd_vector(op, i, [rest](const float* p) { return load_first(p, rest); },
                 [rest](float* p, F v) { store_first(p, v, rest); });
    }
  });
}

}  // namespace

void fill_optim(runtime::Table& table) { table.optim.Sgd = sgd; }

}  // namespace gencore::GENCORE_LEVEL
