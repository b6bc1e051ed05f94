// How kernels cut their work: quads of elements that share a Philox block, elements, tiles of whole rows, and rows shared
// by teams of threads.
//
// Sums over a row are taken in an order that follows from its length and, where its noise is drawn, from its place in
// the flat layout: results are the same bits for any split of the batch and in every run.
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

// Where the noise of an op is found, in the flat layout of random.h.
struct NoiseSource {
  Key key;
  philox::Stream stream;  // without a row
  std::int64_t first;     // element of the flat layout that is the op's first

  // Of an op on matrices of so many columns.
  template <class Coordinates>
  NoiseSource(const Coordinates& op, philox::Domain domain, std::int64_t columns)
      : key(op.key),
        stream(philox::stream(domain, static_cast<std::uint64_t>(op.step), 0)),
        first(op.first_row * columns) {}

  // Blocks are numbered on from one row of Philox to the next.
  __device__ philox::Block block(std::uint64_t number) const {
    constexpr std::uint64_t row_blocks = philox::flat_units / 4;
    return philox::block(key, static_cast<std::uint32_t>(number % row_blocks),
                         static_cast<std::uint32_t>(number / row_blocks), stream.step, stream.tag);
  }
};

// Of `count` elements, the first of which is element `first` of the flat layout, those that have the words of one
// Philox block, the i-th that they meet: 16 apart, so that 16 threads hold 64 elements and each of their four accesses
// is a stretch of 64 bytes, whose ends share sectors with neighbours if `first` is no multiple of 8. At either end of
// the elements some of the four are missing, or all.
struct Quad {
  std::int64_t count, begin;  // element of the first word: before the first element, begin is negative
  std::uint64_t block;

  __device__ Quad(std::int64_t first, std::int64_t count, std::int64_t i)
      : count(count),
        begin(64 * (i / 16) + i % 16 - first % 64),
        block(static_cast<std::uint64_t>(16 * (first / 64) + i)) {}
  __device__ std::int64_t at(int w) const { return begin + 16 * w; }  // element, counted from the first
  __device__ bool has(int w) const { return static_cast<std::uint64_t>(at(w)) < static_cast<std::uint64_t>(count); }

  // body(word, element) for those that there are.
  template <class Body>
  __device__ void each(const Body& body) const {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (has(w)) body(w, at(w));
    }
  }
};

// Quads that `count` elements from element `first` of the flat layout on meet.
GENCORE_INLINE std::int64_t quads_of(std::int64_t first, std::int64_t count) {
  return count == 0 ? 0 : 16 * ((first % 64 + count + 63) / 64);
}

template <class Body>
__global__ void __launch_bounds__(block_threads) over_quads(Body body, std::int64_t first, std::int64_t count) {
  const std::int64_t i = global_thread();
  if (i < quads_of(first, count)) body(Quad(first, count, i));
}

// body(quad) for every quad of an op's first `count` elements.
template <class Op, class Body>
void for_each_quad(const Op& op, const NoiseSource& source, std::int64_t count, const Body& body) {
  launch(op, quads_of(source.first, count), over_quads<Body>, body, source.first, count);
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

// body() by each of so many blocks.
template <class Body>
__global__ void __launch_bounds__(block_threads) over_blocks(Body body) {
  body();
}

template <class Op, class Body>
void for_each_block(const Op& op, std::int64_t blocks, const Body& body) {
  launch_blocks(op, blocks, block_threads, 0, over_blocks<Body>, body);
}

// --- tiles of rows ---------------------------------------------------------------------------------------------------

// `rows` whole rows, of a matrix of rows of n, that a block of threads holds in shared memory. Rows begin an odd number
// of floats apart, so that threads that walk along one row each are on different banks.
struct RowTile {
  std::int64_t first;  // row
  int rows, n, stride;

  // This block's, of tiles of `most` rows.
  __device__ RowTile(std::int64_t all_rows, std::int64_t n, int most)
      : first(static_cast<std::int64_t>(blockIdx.x) * most),
        rows(static_cast<int>(all_rows - first < most ? all_rows - first : most)),
        n(static_cast<int>(n)),
        stride(this->n | 1) {}
  __device__ std::int64_t begin() const { return first * n; }  // element of the matrix
  __device__ int count() const { return rows * n; }
  __device__ std::uint32_t slot(std::int64_t element) const {
    const std::uint32_t e = static_cast<std::uint32_t>(element);
    return e + e / static_cast<std::uint32_t>(n) * static_cast<std::uint32_t>(stride - n);
  }
};

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
