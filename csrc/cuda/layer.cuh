// What becomes of a product's sums in a layer: an epilogue of gemm.cuh.
#pragma once

#include "activation.cuh"
#include "gemm.cuh"

namespace gencore::cuda {

// out = activation(sums + bias).
struct BiasThen {
  Matrix<float> out;
  const float* bias;  // nullptr: none
  dense::Activation activation;

  __device__ void operator()(std::int64_t row, std::int64_t first, const float (&sum)[tile_units]) const {
#pragma unroll
    for (int c = 0; c < tile_units; ++c) {
      const std::int64_t column = first + tile_side * c;
      if (column >= out.shape[1]) return;
      out.row(row)[column] = activated(activation, bias == nullptr ? sum[c] : sum[c] + bias[column]);
    }
  }
};

}  // namespace gencore::cuda
