// What a layer does to its sums.
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

}  // namespace gencore::cuda
