// Sweeps of LSTM cells, step after step, by blocks that do not depend on each other: a block has some sequences side by
// side, or one sweep of one image, for all of its steps, and meets itself at one barrier a step. Nothing waits for the grid.
//
// The states of a step lie in shared memory, one row a position and rows of zeros around, so that the rows which the taps
// of a position meet follow each other: the sums of a position are one product of adjacent floats with the weights. A
// thread has one unit of `rows` positions. The weights, packed in fours, lie in shared memory as far as there is room, and
// the rest comes through the second-level cache.
//
// What limits a step of H units on an H100: 4 taps H^2 multiply-adds for each position at 128 a cycle, and 16 taps H^2 bytes
// of weights for each group of `rows` positions, at 128 bytes a cycle from shared memory, 64 from the second-level cache
// (about 24 where all multiprocessors read it). With 4 rows these are even in shared memory; from the cache, 16 rows bring
// them nearer to each other, where there are as many. Then some 500 cycles for the barrier and what is read of that step.
// With one tap the weights of 116 units fit; of 256, 64 sequences on 16 multiprocessors take some 13,000 cycles a step, 8 us.
// That few sequences do not use all multiprocessors is the price of no barrier for the grid.
//
// Memory of a call: the weights packed once; where a block's states do not fit, theirs. Figures follow from the sizes, and
// have not been measured on a device.
#pragma once

#include <algorithm>

#include "gencore/recurrent.h"
#include "layer.cuh"

namespace gencore::cuda {

constexpr int cell_gates = 4;                   // i, f, g, o
constexpr int narrow_rows = 4, wide_rows = 16;  // positions of a thread

// --- where positions lie -------------------------------------------------------------------------------------------------

// Position p of step d is row `base + p position_stride + d step_stride` of every array. On diagonals step d has those
// positions, rows of the image, whose column d - p is within the width.
struct Sweep {
  int steps, positions;
  std::int64_t base, position_stride, step_stride;
  int taps, up;    // tap j of position p meets position p + j - up of the step before
  int width = -1;  // of diagonals

  __device__ std::int64_t row(int p, int d) const { return base + p * position_stride + d * step_stride; }
  __device__ int first(int d) const { return width < 0 || d < width ? 0 : d - width + 1; }
  __device__ int end(int d) const { return width < 0 || d >= positions ? positions : d + 1; }
  __device__ bool has(int p, int d) const { return d >= 0 && p >= first(d) && p < end(d); }
};

enum class Order { sequences, rows, diagonals };

// All sweeps of an op. A sequence counts as an image of one row, whose columns are its steps.
struct Sweeps {
  Order order;
  std::int64_t count;  // sequences or images
  int height, width;
  int sweeps, taps, units;
  int beside = 1;  // sequences of a block

  explicit Sweeps(const View<const float, 3>& x, std::int64_t units)
      : order(Order::sequences),
        count(x.shape[0]),
        height(1),
        width(static_cast<int>(x.shape[1])),
        sweeps(1),
        taps(1),
        units(static_cast<int>(units)) {}
  template <class Map>
  Sweeps(recurrent::Path path, const Map& h, const View<const float, 4>& w)
      : order(path == recurrent::Path::rows ? Order::rows : Order::diagonals),
        count(h.shape[0]),
        height(static_cast<int>(h.shape[1])),
        width(static_cast<int>(h.shape[2])),
        sweeps(static_cast<int>(w.shape[0])),
        taps(static_cast<int>(w.shape[1])),
        units(static_cast<int>(w.shape[2])) {}

  GENCORE_INLINE int positions() const {
    return order == Order::sequences ? beside : order == Order::rows ? width : height;
  }
  GENCORE_INLINE std::int64_t pixels() const { return std::int64_t{1} * height * width; }  // of one
  std::int64_t blocks() const { return order == Order::sequences ? ceil_div(count, beside) : count * sweeps; }
  // Which of an image's sweeps a block has.
  __device__ int sweep(std::int64_t block) const { return static_cast<int>(block % sweeps); }
  // The first of a block's sequences.
  __device__ std::int64_t first(std::int64_t block) const { return block * beside; }

  __device__ Sweep of(std::int64_t block) const {
    if (order == Order::sequences) {
      const std::int64_t left = count - first(block);
      return {width, static_cast<int>(left < beside ? left : beside), first(block) * width, width, 1, 1, 0};
    }
    const std::int64_t base = block / sweeps * pixels();
    if (order == Order::rows) return {height, width, base, 1, width, taps, taps / 2};
    const int steps = pixels() > 0 ? height + width - 1 : 0;
    if (sweep(block) == 0) return {steps, height, base, width - 1, 1, 2, 1, width};
    return {steps, height, base + width - 1, width + 1, -1, 2, 1, width};  // column width - 1 - (d - p)
  }
};

// --- a block's memory --------------------------------------------------------------------------------------------------

GENCORE_INLINE std::int64_t whole_fours(std::int64_t n) { return (n + 3) / 4 * 4; }

// Two steps' states and the cells of one, in floats. Behind the last position are as many rows as a thread may read there.
struct StateShape {
  int padded = 0, stride = 0;
  std::int64_t cells = 0;

  StateShape() = default;
  StateShape(const Sweeps& all, int stride, int rows)
      : padded(all.positions() + all.taps - 1 + rows - 1),
        stride(stride),
        cells(whole_fours(std::int64_t{1} * all.positions() * all.units)) {}
  GENCORE_INLINE std::int64_t step() const { return std::int64_t{1} * padded * stride; }
  GENCORE_INLINE std::int64_t floats() const { return 2 * step() + cells; }
};

// This block's: zeros at first. `before` is the step that was computed last, `now` the one under way.
struct BlockStates {
  float *before, *now, *cells;

  __device__ BlockStates(const StateShape& shape, float* memory)
      : before(memory), now(memory + shape.step()), cells(memory + 2 * shape.step()) {
    for (std::int64_t i = threadIdx.x; i < shape.floats(); i += block_threads) memory[i] = 0.0f;
    __syncthreads();
  }
  // By all threads: the step under way becomes the one before.
  __device__ void turn() {
    __syncthreads();
    float* const swapped = before;
    before = now;
    now = swapped;
  }
};

// The packed weights of a sweep: `depth` rows of four floats for each unit, the first `staged` of them in shared memory.
struct PackedWeights {
  const float4* data;  // of all sweeps
  int depth, staged;
};

// How the sweeps of an op are launched.
struct SweepPlan {
  bool wide, on_chip;  // on_chip: the states are in shared memory
  StateShape shape;
  int staged;
  std::size_t shared_bytes;
};

// The three kernels of an op: with states beyond shared memory, with few and with many positions to a thread.
template <class Arrays>
struct SweepKernels {
  void (*beyond)(Arrays);
  void (*narrow)(Arrays);
  void (*wide)(Arrays);
};

// For weights of `depth` rows and states `stride` floats apart. Chooses how many sequences a block has: no more than there
// are for each multiprocessor, nor than keep its threads busy or fit. What is chosen shows in no bit.
template <class Op, class Arrays>
SweepPlan plan_sweeps(const Op& op, Sweeps& all, int depth, int stride, const SweepKernels<Arrays>& kernels) {
  const std::size_t shared_bytes = std::min(
      {most_shared(op, kernels.beyond), most_shared(op, kernels.narrow), most_shared(op, kernels.wide)});
  const bool sequences = all.order == Order::sequences;
  const std::int64_t multiprocessors = limits_of(Op::name, op.device).multiprocessors;
  const std::int64_t share = sequences ? ceil_div(all.count, multiprocessors) : all.positions();
  const auto fits = [&](int rows) {
    return 4 * static_cast<std::size_t>(StateShape(all, stride, rows).floats()) <= shared_bytes;
  };
  const auto fits_with = [&](int rows) {
    const std::int64_t busy = rows * (all.units < block_threads ? block_threads / all.units : 1);
    if (sequences) all.beside = static_cast<int>(share < busy ? ceil_div(share, rows) * rows : busy);
    return fits(rows);
  };
  const bool many = share >= wide_rows && ceil_div(share, wide_rows) * all.units >= block_threads;
  const bool wide = many && fits_with(wide_rows);
  bool on_chip = wide || fits_with(narrow_rows);
  if (!on_chip && sequences) {
    all.beside = narrow_rows;
    on_chip = fits(narrow_rows);
  }
  const StateShape shape(all, stride, wide ? wide_rows : narrow_rows);
  const std::size_t states = on_chip ? 4 * static_cast<std::size_t>(shape.floats()) : 0;
  const std::size_t row_bytes = sizeof(float4) * static_cast<std::size_t>(all.units);
  const std::size_t room = (shared_bytes - states) / row_bytes / 4 * 4;
  const int staged = room < static_cast<std::size_t>(depth) ? static_cast<int>(room) : depth;
  return {wide, on_chip, shape, staged, states + row_bytes * static_cast<std::size_t>(staged)};
}

// The kernel that a plan asks for, on all sweeps.
template <class Op, class Arrays>
void launch_sweeps(const Op& op, const Sweeps& all, const SweepPlan& plan, const SweepKernels<Arrays>& kernels,
                   const Arrays& arrays) {
  launch_blocks(op, all.blocks(), block_threads, plan.shared_bytes,
                !plan.on_chip ? kernels.beyond
                : plan.wide   ? kernels.wide
                              : kernels.narrow,
                arrays);
}

// The block's states, in shared memory or beyond it.
template <bool on_chip>
__device__ inline float* state_memory(const StateShape& shape, float* memory) {
  if constexpr (on_chip) return reinterpret_cast<float*>(dynamic_shared());
  return memory + blockIdx.x * shape.floats();
}

// The weights of the block's sweep, and those of them that it has copied to shared memory.
struct BlockWeights {
  const float4 *staged, *all;

  __device__ BlockWeights(const PackedWeights& weights, int sweep, int units, std::int64_t floats_before)
      : all(weights.data + std::int64_t{1} * sweep * weights.depth * units) {
    float4* const to = reinterpret_cast<float4*>(reinterpret_cast<float*>(dynamic_shared()) + floats_before);
    for (int i = static_cast<int>(threadIdx.x); i < weights.staged * units; i += block_threads) to[i] = all[i];
    staged = to;
    __syncthreads();
  }
};

// body(first position, unit) by one thread for each unit of each group of `rows` positions of a step.
template <int rows, class Body>
__device__ void for_each_unit(int first, int end, int units, const Body& body) {
  const int items = (end - first + rows - 1) / rows * units;
  for (int i = static_cast<int>(threadIdx.x); i < items; i += block_threads) {
    const int group = i / units;
    body(first + group * rows, i - group * units);
  }
}

// --- one cell ------------------------------------------------------------------------------------------------------------

struct Cell {
  float i, f, g, o, c, h;
};

__device__ inline Cell cell_step(float i, float f, float g, float o, float before) {
  Cell cell{logistic(i), logistic(f), tanh(g), logistic(o), 0.0f, 0.0f};
  cell.c = fmaf(cell.f, before, cell.i * cell.g);
  cell.h = cell.o * tanh(cell.c);
  return cell;
}

}  // namespace gencore::cuda
