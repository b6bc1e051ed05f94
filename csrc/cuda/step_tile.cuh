// Products by the tiles of gemm.cuh whose factors are no matrices: functions say what is where, and which steps of the depth
// there are. What is masked is in no step.
#pragma once

#include "gemm.cuh"

namespace gencore::cuda {

// A tile of 16 `rows` x 16 `units` sums, whose factors are fetched by functions of their place. Both factors' elements that
// do not exist are 0, so that they leave the sums alone.
template <int rows, int units>
struct StepTile {
  static constexpr int height = tile_side * rows, width = tile_side * units;
  using Places = Tile<8>;

  struct Memory {
    alignas(16) float a[tile_depth][height];
    alignas(16) float b[tile_depth][width];
  };

  // A thread's share of the way to shared memory: element s has this line and this place in the step. Neighbours are
  // threads along the depth of a step, or along the lines, whichever are neighbours in memory.
  template <int count, bool along_depth>
  struct Share {
    static constexpr int lines = tile_side * count, elements = lines * tile_depth / block_threads;
    static_assert(elements > 0);
    float held[elements];

    __device__ static int line(int s) {
      const int i = static_cast<int>(threadIdx.x);
      return along_depth ? i / tile_depth + s * (block_threads / tile_depth) : i % lines;
    }
    __device__ static int depth(int s) {
      const int i = static_cast<int>(threadIdx.x);
      return along_depth ? i % tile_depth : i / lines + s * (block_threads / lines);
    }
    // from(element, line, place in the step) for each of the thread's elements.
    template <class From>
    __device__ void fetch(const From& from) {
#pragma unroll
      for (int s = 0; s < elements; ++s) held[s] = from(s, line(s), depth(s));
    }
    __device__ void put(float* to) const {
#pragma unroll
      for (int s = 0; s < elements; ++s) to[depth(s) * lines + Places::place<count>(line(s))] = held[s];
    }
  };

  // Adds the products of one step. T is what the left factor is made of.
  template <class T>
  __device__ static void add(const Memory& memory, float (&sum)[rows][units]) {
    const int x = static_cast<int>(threadIdx.x) % tile_side, y = static_cast<int>(threadIdx.x) / tile_side;
#pragma unroll
    for (int t = 0; t < tile_depth; ++t) {
      float a[rows], b[units];
      Places::read<rows>(memory.a[t], y, a);
      Places::read<units>(memory.b[t], x, b);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
#pragma unroll
        for (int c = 0; c < units; ++c) sum[r][c] = accumulate<T>(a[r], b[c], sum[r][c]);
      }
    }
  }

  // The sums over all steps. `steps` is where they are: valid(), next(), and fetch(a, b) into the shares, of types
  // Steps::A and Steps::B; Steps::Element is what the left factor is made of.
  template <class Steps>
  __device__ static void sum_up(Memory& memory, Steps& steps, float (&sum)[rows][units]) {
    typename Steps::A a;
    typename Steps::B b;
    bool more = steps.valid();
    if (more) steps.fetch(a, b);
    while (more) {
      a.put(&memory.a[0][0]);
      b.put(&memory.b[0][0]);
      __syncthreads();
      steps.next();
      more = steps.valid();
      if (more) steps.fetch(a, b);
      add<typename Steps::Element>(memory, sum);
      __syncthreads();
    }
  }

  // body(line, unit, sum) for each of the thread's sums. Not unrolled along the lines, so that the body is compiled for one
  // of them: the sums move up instead.
  template <class Body>
  __device__ static void each(float (&sum)[rows][units], const Body& body) {
    const int x = static_cast<int>(threadIdx.x) % tile_side, y = static_cast<int>(threadIdx.x) / tile_side;
#pragma unroll 1
    for (int r = 0; r < rows; ++r) {
#pragma unroll
      for (int c = 0; c < units; ++c) body(y + tile_side * r, x + tile_side * c, sum[0][c]);
#pragma unroll
      for (int other = 1; other < rows; ++other) {
#pragma unroll
        for (int c = 0; c < units; ++c) sum[other - 1][c] = sum[other][c];
      }
    }
  }
};

template <int n>
using Number = std::integral_constant<int, n>;

}  // namespace gencore::cuda
