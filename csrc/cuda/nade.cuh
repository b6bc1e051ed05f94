// What NADE's kernels share: the parameters with the dimensions in their order, and the logits.
#pragma once

#include "gencore/nade.h"
#include "launch.cuh"

namespace gencore::cuda {

struct Nade {
  const float *w, *c, *v, *b;
  const std::int64_t* order;
  std::int64_t dims, hidden;

  explicit Nade(const autoregressive::NadeParameters& op)
      : w(op.w.data),
        c(op.c.data),
        v(op.v.data),
        b(op.b.data),
        order(op.order.given() ? op.order.data : nullptr),
        dims(op.w.shape[0]),
        hidden(op.w.shape[1]) {}
  // Of an order that is no permutation nobody knows in time: what it names beyond the dimensions counts as the first.
  __device__ std::int64_t at(std::int64_t i) const {
    if (i >= dims) return 0;
    const std::int64_t d = order == nullptr ? i : order[i];
    return static_cast<std::uint64_t>(d) < static_cast<std::uint64_t>(dims) ? d : 0;
  }
};

// logits (N, D) of each row of x.
template <class Op>
void nade_logits(const Op& op, const ConstStates& x, float* logits);  // nade.cu

}  // namespace gencore::cuda
