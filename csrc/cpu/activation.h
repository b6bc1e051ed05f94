// What is done to the sums of a layer while they are in the cache, and the slopes of that.
#pragma once

#include "gemm.h"
#include "gencore/dense.h"
#include "math.h"

namespace gencore::GENCORE_LEVEL {

// activation(sums + bias). Along a row of c the bias changes with the column; along a column of c, computed as a row of
// the transposed product, it does not.
template <class Function>
struct BiasThen {
  const float* bias;  // nullptr: none
  std::int64_t columns;
  bool along_row;
  Function activation;

  GENCORE_INLINE F operator()(F x, std::int64_t first) const {
    if (bias == nullptr) return activation(x);
    if (!along_row) return activation(x + *bias);
    const std::int64_t left = columns - first;
    return activation(x + (left >= lanes ? load(bias + first) : load_first(bias + first, static_cast<int>(left))));
  }
};

// body(epilogue) for activation(sums + bias), bias being optional.
template <class Body>
void with_epilogue(dense::Activation activation, const float* bias, std::int64_t columns, bool along_row,
                   const Body& body) {
  const auto then = [&](const auto& function) {
    body(BiasThen<__typeof__(function)>{bias, columns, along_row, function});
  };
  switch (activation) {
    case dense::Activation::identity:
      if (bias == nullptr) return body(Identity{});
      return then([](F x) { return x; });
    case dense::Activation::logistic: return then([](F x) { return logistic(x); });
    case dense::Activation::tanh: return then([](F x) { return tanh(x); });
    case dense::Activation::relu: return then([](F x) { return max(splat(0.0f), x); });
    case dense::Activation::softplus: return then([](F x) { return softplus(x); });
  }
}

// grad times the slope of an activation, from the value y of the activation.
struct LogisticSlope {
  GENCORE_INLINE F operator()(F grad, F y) const { return grad * (y * (1.0f - y)); }
};
struct TanhSlope {
  GENCORE_INLINE F operator()(F grad, F y) const { return grad * ((1.0f - y) * (1.0f + y)); }
};
struct ReluSlope {  // grad where y is NaN
  GENCORE_INLINE F operator()(F grad, F y) const { return select(less_equal(y, splat(0.0f)), splat(0.0f), grad); }
};
struct SoftplusSlope {
  GENCORE_INLINE F operator()(F grad, F y) const { return grad * one_minus_exp_minus(y); }
};

// body(slope) for the slope of an activation.
template <class Body>
void with_slope(dense::Activation activation, const Body& body) {
  switch (activation) {
    case dense::Activation::identity: return body([](F grad, F) { return grad; });
    case dense::Activation::logistic: return body(LogisticSlope{});
    case dense::Activation::tanh: return body(TanhSlope{});
    case dense::Activation::relu: return body(ReluSlope{});
    case dense::Activation::softplus: return body(SoftplusSlope{});
  }
}

}  // namespace gencore::GENCORE_LEVEL
