// Sums down the columns of matrices, in float64 and in an order that the number of rows alone decides.
#pragma once

#include "common.cuh"

namespace gencore::cuda {

constexpr int column_strips = block_threads / warp_lanes;  // threads that share a column

// body.rows(column) terms body.term(row, column) each, and their sum to body.put(column, total).
template <class Body>
__global__ void __launch_bounds__(block_threads) over_columns(Body body, std::int64_t columns) {
  __shared__ double part[column_strips][warp_lanes];
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes, strip = static_cast<int>(threadIdx.x) / warp_lanes;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * warp_lanes + lane;
  double total = 0;
  if (column < columns) {
    for (std::int64_t r = strip; r < body.rows(column); r += column_strips) total += body.term(r, column);
  }
  part[strip][lane] = total;
  __syncthreads();
  if (strip != 0 || column >= columns) return;
  for (int s = 1; s < column_strips; ++s) total += part[s][lane];
  body.put(column, total);
}

template <class Op, class Body>
void for_each_column(const Op& op, std::int64_t columns, const Body& body) {
  launch_blocks(op, ceil_div(columns, warp_lanes), block_threads, 0, over_columns<Body>, body, columns);
}

}  // namespace gencore::cuda
