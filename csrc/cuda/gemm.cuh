// Products of float32 matrices, or of one of bytes of 0 and 1 with one of float32, by tiles in shared memory; what becomes
// of the sums is a template argument.
//
// Every element is one chain of fused multiply-adds over ascending k that starts at 0, as on the CPU: neither the tiles nor
// the batch can change a bit of it, and bytes of 0 and 1 give the bits of adding the rows that the ones select.
//
// The limit: 128 multiply-adds a cycle of each multiprocessor, 132 of them at 1.7 GHz, 57 TFLOP/s on an H100. A thread
// holds 8 x 8 sums: for 64 multiply-adds it reads 4 vectors of 16 bytes, a warp of them 6 cycles of shared memory for 16
// of arithmetic. Where such tiles would leave multiprocessors idle, a thread holds 2 x 8.
#pragma once

#include <type_traits>

#include "common.cuh"

namespace gencore::cuda {

constexpr int tile_depth = 8;                         // terms of the sums that are in shared memory at a time
constexpr int tile_side = 16;                         // threads along either side of a tile
constexpr int tile_units = 8;                         // columns of a thread, 16 apart
constexpr int tile_columns = tile_side * tile_units;  // 128: what shares 16 blocks of Philox
static_assert(tile_side * tile_side == block_threads);

// Element (i, k) of a matrix, or of its transpose; one of the steps is 1.
template <class T>
struct Factor {
  const T* data;
  std::int64_t row_step, column_step;

  static Factor of(const void* data, std::int64_t columns, bool transposed) {
    return {static_cast<const T*>(data), transposed ? 1 : columns, transposed ? columns : 1};
  }
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(std::uint8_t x) { return x != 0 ? 1.0f : 0.0f; }

// A byte of 0 leaves the sum alone, whatever it meets.
template <class T>
__device__ inline float accumulate(float a, float b, float sum) {
  if constexpr (std::is_same_v<T, float>) {
    return fmaf(a, b, sum);
  } else {
    return a != 0.0f ? sum + b : sum;
  }
}

// `count` adjacent floats, 1, 2 or a multiple of 4, from an address that is a multiple of as many bytes.
template <int count>
__device__ inline void load_adjacent(const float* from, float* to) {
  if constexpr (count % 4 == 0) {
#pragma unroll
    for (int i = 0; i < count; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + i);
      to[i] = v.x;
      to[i + 1] = v.y;
      to[i + 2] = v.z;
      to[i + 3] = v.w;
    }
  } else if constexpr (count == 2) {
    const float2 v = *reinterpret_cast<const float2*>(from);
    to[0] = v.x;
    to[1] = v.y;
  } else {
    to[0] = *from;
  }
}

// A tile of 16 `rows` x 128 sums: thread (x, y) has rows y + 16 r and columns x + 16 c. In shared memory a thread's rows
// (and columns) lie together by fours, so that it reads vectors and a warp's vectors lie side by side.
template <int rows>
struct Tile {
  static constexpr int height = tile_side * rows;

  struct Memory {
    alignas(16) float a[tile_depth][height];
    alignas(16) float b[tile_depth][tile_columns];
  };

  Memory& memory;
  int x, y;

  __device__ explicit Tile(Memory& memory)
      : memory(memory), x(static_cast<int>(threadIdx.x) % tile_side), y(static_cast<int>(threadIdx.x) / tile_side) {}

  // Where what belongs to line `line` of `count` a thread lies.
  template <int count>
  __device__ static int place(int line) {
    constexpr int together = count < 4 ? count : 4;
    const int thread = line % tile_side, which = line / tile_side;
    return which / together * (tile_side * together) + thread * together + which % together;
  }
  template <int count>
  __device__ static void read(const float* from, int thread, float* to) {
    constexpr int together = count < 4 ? count : 4;
#pragma unroll
    for (int i = 0; i < count; i += together) {
      load_adjacent<together>(from + i * tile_side + thread * together, to + i);
    }
  }

  // Adds a b, whose tile begins at (i0, j0), to the sums. By all threads of the block.
  template <class T>
  __device__ void add(const Factor<T>& a, const Factor<float>& b, std::int64_t m, std::int64_t n, std::int64_t depth,
                      std::int64_t i0, std::int64_t j0, float (&sum)[rows][tile_units]) const {
    Carrier<T, rows> carry_a(a, m - i0, i0);
    Carrier<float, tile_units> carry_b(Factor<float>{b.data, b.column_step, b.row_step}, n - j0, j0);
    carry_a.fetch(depth);
    carry_b.fetch(depth);
    for (std::int64_t left = depth; left > 0; left -= tile_depth) {
      carry_a.put(&memory.a[0][0]);
      carry_b.put(&memory.b[0][0]);
      __syncthreads();
      carry_a.fetch(left - tile_depth);
      carry_b.fetch(left - tile_depth);
#pragma unroll
      for (int t = 0; t < tile_depth; ++t) {
        float own_a[rows], own_b[tile_units];
        read<rows>(memory.a[t], y, own_a);
        read<tile_units>(memory.b[t], x, own_b);
#pragma unroll
        for (int r = 0; r < rows; ++r) {
#pragma unroll
          for (int c = 0; c < tile_units; ++c) sum[r][c] = accumulate<T>(own_a[r], own_b[c], sum[r][c]);
        }
      }
      __syncthreads();
    }
  }

  // body(row of the tile, sums of its columns first + 16 c), first = x. Not unrolled, so that the body is compiled once:
  // the sums move up instead.
  template <class Body>
  __device__ void each_row(float (&sum)[rows][tile_units], const Body& body) const {
#pragma unroll 1
    for (int r = 0; r < rows; ++r) {
      body(y + tile_side * r, sum[0]);
#pragma unroll
      for (int other = 1; other < rows; ++other) {
#pragma unroll
        for (int c = 0; c < tile_units; ++c) sum[other - 1][c] = sum[other][c];
      }
    }
  }

 private:
  // A thread's share of one factor's way to shared memory: `count` elements a step of the depth, which it holds from
  // fetch() to put(). `own` lines of the factor belong to each thread of the tile's side.
  template <class T, int own>
  struct Carrier {
    static constexpr int lines = tile_side * own, count = lines * tile_depth / block_threads;

    const T* at;
    std::int64_t step, next;  // to the following element, and to the first one of the next step
    int line, t, line_step, t_step, lines_left;
    float held[count];

    // Neighbours are threads along the side of the factor whose step is 1.
    __device__ Carrier(const Factor<T>& from, std::int64_t left, std::int64_t first) {
      const int i = static_cast<int>(threadIdx.x);
      const bool along_depth = from.column_step == 1;
      line = along_depth ? i / tile_depth : i % lines;
      t = along_depth ? i % tile_depth : i / lines;
      line_step = along_depth ? block_threads / tile_depth : 0;
      t_step = along_depth ? 0 : block_threads / lines;
      lines_left = static_cast<int>(left < lines ? left : lines);
      at = from.data + (first + line) * from.row_step + t * from.column_step;
      step = line_step * from.row_step + t_step * from.column_step;
      next = tile_depth * from.column_step;
    }
    // The next step, of which `left` terms are there.
    __device__ void fetch(std::int64_t left) {
#pragma unroll
      for (int s = 0; s < count; ++s) {
        const bool exists = line + s * line_step < lines_left && t + s * t_step < left;
        held[s] = exists ? to_float(at[s * step]) : 0.0f;
      }
      at += next;
    }
    __device__ void put(float* to) const {
#pragma unroll
      for (int s = 0; s < count; ++s) to[(t + s * t_step) * lines + place<own>(line + s * line_step)] = held[s];
    }
  };
};

struct Size {
  std::int64_t m, n, k;
};

// epilogue(row, first column of the thread, sums of columns first + 16 c): columns at or beyond n are not its own.
template <int rows, class T, class Epilogue>
__global__ void __launch_bounds__(block_threads, 2)
    product(Factor<T> a, Factor<float> b, Size size, Epilogue epilogue) {
  __shared__ typename Tile<rows>::Memory memory;
  const Tile<rows> tile(memory);
  const std::int64_t across = (size.n + tile_columns - 1) / tile_columns;
  const std::int64_t i0 = blockIdx.x / across * Tile<rows>::height, j0 = blockIdx.x % across * tile_columns;
  float sum[rows][tile_units] = {};
  tile.add(a, b, size.m, size.n, size.k, i0, j0, sum);
  tile.each_row(sum, [&](int row, const float (&own)[tile_units]) {
    if (i0 + row < size.m) epilogue(i0 + row, j0 + tile.x, own);
  });
}

// run(rows of a thread) for the tiles that suit c.
template <class Op, class Run>
void with_tile(const Op& op, std::int64_t m, std::int64_t n, const Run& run) {
  const std::int64_t large = ceil_div(m, tile_side * 8) * ceil_div(n, tile_columns);
  if (large >= limits_of(Op::name, op.device).multiprocessors) return run(std::integral_constant<int, 8>{});
  run(std::integral_constant<int, 2>{});
}

template <class T, class Op, class Epilogue>
void multiply(const Op& op, const Factor<T>& a, const Factor<float>& b, const Size& size, const Epilogue& epilogue) {
  if (size.m == 0 || size.n == 0) return;
  with_tile(op, size.m, size.n, [&](auto rows) {
    const std::int64_t tiles = ceil_div(size.m, tile_side * rows) * ceil_div(size.n, tile_columns);
    launch_blocks(op, tiles, block_threads, 0, product<decltype(rows)::value, T, Epilogue>, a, b, size, epilogue);
  });
}

// The same for states of either type.
template <class Op, class Epilogue>
void multiply(const Op& op, const ConstStates& a, bool transpose_a, const Factor<float>& b, const Size& size,
              const Epilogue& epilogue) {
  if (a.type == StateType::u8) {
    multiply(op, Factor<std::uint8_t>::of(a.data, a.shape[1], transpose_a), b, size, epilogue);
  } else {
    multiply(op, Factor<float>::of(a.data, a.shape[1], transpose_a), b, size, epilogue);
  }
}

}  // namespace gencore::cuda
