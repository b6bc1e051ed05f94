// Fused parameter updates.
#include "gencore/optim.h"

#include "../runtime/table.h"
#include "parallel.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using optim::Sgd;

void sgd(const Sgd& op) {
  constexpr std::int64_t block = 16384;
  const std::int64_t n = op.param.shape[0];
  const F lr = splat(op.lr), momentum = splat(op.momentum), decay = splat(op.weight_decay);
  parallel_for(ceil_div(n, block), [&](std::int64_t task) {
    const std::int64_t end = min_of(n, (task + 1) * block);
    for (std::int64_t i = task * block; i < end; i += lanes) {
      const int count = static_cast<int>(min_of(lanes, end - i));
      const F param = load_first(op.param.data + i, count);
      F change = lr * (load_first(op.grad.data + i, count) - decay * param);
      if (op.velocity.given()) {
        change = fma(momentum, load_first(op.velocity.data + i, count), change);
        store_first(op.velocity.data + i, change, count);
      }
      store_first(op.param.data + i, param + change, count);
    }
  });
}

}  // namespace

void fill_optim(runtime::Table& table) { table.optim.Sgd = sgd; }

}  // namespace gencore::GENCORE_LEVEL
