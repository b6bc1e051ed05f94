// The gate of gated convolutions and its gradient: tanh of one half of a pixel's features times the logistic of the other.
#pragma once

#include "bernoulli_cost.h"

namespace gencore::GENCORE_LEVEL {

// out[c] = tanh(x[c]) logistic(x[n + c]).
inline void gate(const float* x, std::int64_t n, float* out) {
  for_each_vector(0, n, [&](std::int64_t c, int valid) {
    store_up_to(out + c, tanh(load_or(x + c, valid, 0.0f)) * logistic(load_or(x + n + c, valid, 0.0f)), valid);
  });
}

// grad_x[c] = grad (1 - t^2) s, grad_x[n + c] = grad t s (1 - s).
inline void gate_vjp(const float* x, const float* grad, std::int64_t n, float* grad_x) {
  for_each_vector(0, n, [&](std::int64_t c, int valid) {
    const F t = tanh(load_or(x + c, valid, 0.0f)), s = logistic(load_or(x + n + c, valid, 0.0f));
    const F g = load_or(grad + c, valid, 0.0f);
    store_up_to(grad_x + c, g * s * ((1.0f - t) * (1.0f + t)), valid);
    store_up_to(grad_x + n + c, g * t * (s * (1.0f - s)), valid);
  });
}

}  // namespace gencore::GENCORE_LEVEL
