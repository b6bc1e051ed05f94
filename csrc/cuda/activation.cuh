// What a layer does to its sums, and the slopes of that.
#pragma once

#include "gencore/dense.h"
#include "math.cuh"

namespace gencore::cuda {

__device__ inline float activated(dense::Activation activation, float x) {
  switch (activation) {
    case dense::Activation::identity: return x;
    case dense::Activation::logistic: return logistic(x);
    case dense::Activation::tanh: return tanh(x);
    case dense::Activation::relu: return max(0.0f, x);
    case dense::Activation::softplus: return softplus(x);
  }
  return x;
}

// grad times the slope of the activation, from its value.
__device__ inline float slope(dense::Activation activation, float grad, float value) {
  switch (activation) {
    case dense::Activation::identity: return grad;
    case dense::Activation::logistic: return grad * (value * (1.0f - value));
    case dense::Activation::tanh: return grad * ((1.0f - value) * (1.0f + value));
    case dense::Activation::relu: return value <= 0.0f ? 0.0f : grad;  // grad where value is NaN
    case dense::Activation::softplus: return grad * one_minus_exp_minus(value);
  }
  return grad;
}

}  // namespace gencore::cuda
