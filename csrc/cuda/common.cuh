// How kernels cut their work: quads of units that share a Philox block, elements, and rows shared by teams of threads.
//
// What a thread computes follows from the shape of the arrays alone, and sums over a row are taken in the same order
// whatever else is in the batch: results are the same bits for any split of the batch and in every run.
#pragma once

#include "gencore/random.h"
#include "launch.cuh"

namespace gencore::cuda {

// i / d and i % d; two 64-bit numbers are divided in 100 instructions, two of 32 bits in 20.
__device__ inline void divide(std::int64_t i, std::int64_t d, std::int64_t& quotient, std::int64_t& rest) {
  if (((i | d) >> 32) == 0) {
    quotient = static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(d);
  } else {
    quotient = i / d;
  }
  rest = i - quotient * d;
}

__device__ inline std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
}

// --- quads -----------------------------------------------------------------------------------------------------------

// Where an op's noise is found.
struct NoiseSource {
  Key key;
  philox::Stream stream;  // its row is that of row 0
  __device__ philox::Block block(std::int64_t row, std::uint32_t number) const {
    return philox::block(key, number, stream.row + static_cast<std::uint32_t>(row), stream.step, stream.tag);
  }
};

// The units of one row that are the four words of a Philox block: 16 apart, so that 16 threads hold 64 units and each of
// their four accesses is a stretch of 64 bytes.
struct Quad {
  std::int64_t row, unit, units;
  std::uint32_t block;

  __device__ Quad(std::int64_t row, std::int64_t number, std::int64_t units)
      : row(row), unit(number / 16 * 64 + number % 16), units(units), block(static_cast<std::uint32_t>(number)) {}
  __device__ bool has(int w) const { return unit + 16 * w < units; }
  __device__ std::int64_t at(int w) const { return row * units + unit + 16 * w; }  // element of a matrix
};

// Quads of a row: those of whole superblocks, and as many of the last as it has units in its first word.
GENCORE_INLINE std::int64_t quads_of(std::int64_t units) {
  return 16 * (units / 64) + (units % 64 < 16 ? units % 64 : 16);
}

template <class Body>
__global__ void __launch_bounds__(block_threads) over_quads(Body body, std::int64_t rows, std::int64_t units) {
  const std::int64_t i = global_thread(), quads = quads_of(units);
  if (i >= rows * quads) return;
  std::int64_t row, number;
  divide(i, quads, row, number);
  body(Quad(row, number, units));
}

// body(quad) for every quad of a matrix.
template <class Op, class Body>
void for_each_quad(const Op& op, std::int64_t rows, std::int64_t units, const Body& body) {
  launch(op, rows * quads_of(units), over_quads<Body>, body, rows, units);
}

// --- elements --------------------------------------------------------------------------------------------------------

template <class Body>
__global__ void __launch_bounds__(block_threads) over_elements(Body body, std::int64_t count) {
  const std::int64_t i = global_thread();
  if (i < count) body(i);
}

template <class Op, class Body>
void for_each_element(const Op& op, std::int64_t count, const Body& body) {
  launch(op, count, over_elements<Body>, body, count);
}

// --- teams -----------------------------------------------------------------------------------------------------------

// The threads that share a row: a power of two within a warp, or the whole block. Each of its functions is called by all
// threads of the block together, and gives every thread of a team the same value.
struct Team {
  int size, rank;

  struct Sum {
    template <class T>
    __device__ T operator()(T a, T b) const {
      return a + b;
    }
  };
  struct Max {  // of NaN and a number, the number
    template <class T>
    __device__ T operator()(T a, T b) const {
      return a >= b || b != b ? a : b;
    }
  };
  struct Min {
    template <class T>
    __device__ T operator()(T a, T b) const {
      return a <= b ? a : b;
    }
  };

  template <class T, class Combine>
  __device__ T reduce(T value, Combine combine) const {
    for (int step = (size < warp_lanes ? size : warp_lanes) / 2; step > 0; step /= 2) {
      value = combine(value, __shfl_xor_sync(all_lanes, value, step));
    }
    if (size <= warp_lanes) return value;
    __shared__ T of_warp[block_threads / warp_lanes];
    if (rank % warp_lanes == 0) of_warp[rank / warp_lanes] = value;
    __syncthreads();
    value = of_warp[0];
    for (int w = 1; w < block_threads / warp_lanes; ++w) value = combine(value, of_warp[w]);
    __syncthreads();  // of_warp may be written again
    return value;
  }
  template <class T>
  __device__ T sum(T value) const {
    return reduce(value, Sum{});
  }
  template <class T>
  __device__ T max(T value) const {
    return reduce(value, Max{});
  }
  template <class T>
  __device__ T min(T value) const {
    return reduce(value, Min{});
  }

  // The sum of the values of ranks 0 .. rank.
  __device__ double running_sum(double value) const {
    const int lane = rank % warp_lanes;
    for (int step = 1; step < size && step < warp_lanes; step *= 2) {
      const double before = __shfl_up_sync(all_lanes, value, step);
      if (lane >= step) value += before;
    }
    if (size <= warp_lanes) return value;
    __shared__ double of_warp[block_threads / warp_lanes];
    if (lane == warp_lanes - 1) of_warp[rank / warp_lanes] = value;
    __syncthreads();
    double before = 0;
    for (int w = 0; w < rank / warp_lanes; ++w) before += of_warp[w];
    __syncthreads();
    return before + value;
  }
};

// Threads for a row of `items` pieces of work: enough for one each up to a warp; a block where a warp would take long.
inline int team_size(std::int64_t items) {
  if (items > 16 * warp_lanes) return block_threads;
  int size = 1;
  while (size < items && size < warp_lanes) size *= 2;
  return size;
}

template <class Body>
__global__ void __launch_bounds__(block_threads) over_rows(Body body, std::int64_t rows, int size) {
  const Team team{size, static_cast<int>(threadIdx.x) % size};
  const std::int64_t row = global_thread() / size;
  body(team, row, row < rows);
}

// body(team, row, exists) with a team for every row; where the last block has more teams than rows are left, some rows do
// not exist.
template <class Op, class Body>
void for_each_row(const Op& op, std::int64_t rows, std::int64_t items, const Body& body) {
  const int size = team_size(items);
  launch(op, rows * size, over_rows<Body>, body, rows, size);
}

}  // namespace gencore::cuda
