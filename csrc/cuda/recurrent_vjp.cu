// Gradients of LSTMs along sequences and images: back through all steps in one launch, then the weights' gradients as one
// product over all positions, cut into parts by the sizes alone, whose sums are added in order.
//
// What limits the way back is as recurrent.cuh says; a unit reads the gradients of all gates of the step after, where going
// forward it has four sums. The product reaches what gemm.cuh does where its tiles are full, 128 inputs and states and 128
// gates; 16 images of 28 x 28 pixels with 32 units, two taps and two sweeps take 0.2 G multiply-adds, 7 us at that rate.
//
// Memory of a call, beside that of recurrent.cuh: the parts' sums, one copy of the weights or the floats of some 512 tiles,
// and for sequences the gradients of the gates, 16 N T H bytes.
#include "columns.cuh"
#include "recurrent.cuh"
#include "step_tile.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using recurrent::LstmVjp;
using recurrent::MapLstmVjp;

// --- back through the steps ------------------------------------------------------------------------------------------

struct Backward {
  Sweeps all;
  PackedWeights weights{};  // of each tap, the last first: of each four gates
  StateShape shape{};
  float* memory = nullptr;  // of the states of all blocks, where they are not in shared memory
  const float *grad_h = nullptr, *gates = nullptr, *cells = nullptr;
  float* grad_z = nullptr;                       // as gates
  const float *c0 = nullptr, *grad_c = nullptr;  // (sequences, units), or none
  float *grad_h0 = nullptr, *grad_c0 = nullptr;  // (sequences, units), or none
};

// Row (tap from the last, four gates) of a unit's packed weights.
struct PackUnits {
  const float* w;  // (sweeps, taps, units, 4 units)
  int taps;
  std::int64_t units;
  float4* out;

  __device__ void operator()(std::int64_t i) const {
    std::int64_t row, unit, tap, four, sweep, from_last;
    divide(i, units, row, unit);
    divide(row, units, tap, four);
    divide(tap, taps, sweep, from_last);
    const float* from = w + ((sweep * taps + taps - 1 - from_last) * units + unit) * cell_gates * units + 4 * four;
    out[i] = {from[0], from[1], from[2], from[3]};
  }
};

// sum[r] += the gradients of row r times the weights of one unit, over `count` fours of them.
template <int rows>
__device__ inline void add_gradients(const float4* w, int units, int count, const float* state, int stride,
                                     float (&sum)[rows]) {
#pragma unroll 4
  for (int k = 0; k < count; ++k) {
    const float4 weight = w[k * units];
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float dz[4];
      load_adjacent<4>(state + r * stride + 4 * k, dz);
      sum[r] = fmaf(dz[3], weight.w, fmaf(dz[2], weight.z, fmaf(dz[1], weight.y, fmaf(dz[0], weight.x, sum[r]))));
    }
  }
}

// What a cell is differentiated at.
struct At {
  float i, f, g, o, c, before, grad_h;
};

// One sweep of a block.
template <int rows>
class BackwardSweep {
 public:
  __device__ BackwardSweep(const Backward& b, float* memory, std::int64_t floats_before)
      : b_(b),
        sweep_(b.all.of(blockIdx.x)),
        units_(b.all.units),
        stride_(b.shape.stride),
        lead_(sweep_.taps - 1 - sweep_.up),
        offset_(b.all.sweep(blockIdx.x) * units_),
        h_stride_(b.all.sweeps * units_),
        states_(b.shape, memory),
        weights_(b.weights, b.all.sweep(blockIdx.x), units_, floats_before) {}

  __device__ void run() {
    const std::int64_t first = b_.all.first(blockIdx.x) * units_;
    const int initial = sweep_.positions * units_;
    if (b_.grad_c != nullptr) {
      for (int i = static_cast<int>(threadIdx.x); i < initial; i += block_threads) {
        states_.cells[i] = b_.grad_c[first + i];
      }
      __syncthreads();
    }
    for (int d = sweep_.steps - 1; d >= 0; --d) {
      const int end = sweep_.end(d);
      for_each_unit<rows>(sweep_.first(d), end, units_, [&](int p, int unit) { step(d, p, end, unit); });
      states_.turn();
    }
    if (b_.grad_c0 != nullptr) {
      for (int i = static_cast<int>(threadIdx.x); i < initial; i += block_threads) {
        b_.grad_c0[first + i] = states_.cells[i];
      }
    }
    if (b_.grad_h0 == nullptr) return;
    for_each_unit<rows>(0, sweep_.positions, units_, [&](int p, int unit) {
      float sum[rows] = {};
      gradients(p, unit, sum);
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        if (p + r < sweep_.positions) b_.grad_h0[first + (p + r) * units_ + unit] = sum[r];
      }
    });
  }

 private:
  // Of h, from the step after: positions from p on.
  __device__ void gradients(int p, int unit, float (&sum)[rows]) const {
    const int staged = b_.weights.staged;
    const float* after = states_.before + p * stride_;
    add_gradients(weights_.staged + unit, units_, staged, after, stride_, sum);
    add_gradients(weights_.all + staged * units_ + unit, units_, b_.weights.depth - staged, after + 4 * staged, stride_,
                  sum);
  }
  __device__ At at(int p, int d, int unit) const {
    const std::int64_t row = sweep_.row(p, d), own = row * h_stride_ + offset_ + unit;
    const float* gates = b_.gates + cell_gates * (row * h_stride_ + offset_) + unit;
    float before = 0.0f;
    if (sweep_.has(p, d - 1)) {
      before = b_.cells[sweep_.row(p, d - 1) * h_stride_ + offset_ + unit];
    } else if (b_.c0 != nullptr) {
      before = b_.c0[(b_.all.first(blockIdx.x) + p) * units_ + unit];
    }
    return {gates[0], gates[units_], gates[2 * units_], gates[3 * units_], b_.cells[own], before, b_.grad_h[own]};
  }
  // A unit of the positions from p on, those before `end`. Few ask beforehand for what does not depend on the step after.
  __device__ void step(int d, int p, int end, int unit) {
    constexpr bool early = rows == narrow_rows;
    At here[rows] = {};
    float sum[rows] = {};
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      if (early && p + r < end) here[r] = at(p + r, d, unit);
    }
    if (d + 1 < sweep_.steps) gradients(p, unit, sum);
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      if (p + r >= end) continue;
      if (!early) here[r] = at(p + r, d, unit);
      back(sweep_.row(p + r, d), p + r, unit, here[r], sum[r] + here[r].grad_h);
    }
  }
  __device__ void back(std::int64_t row, int p, int unit, const At& a, float dh) {
    const float t = tanh(a.c);
    float& cell = states_.cells[p * units_ + unit];
    const float dc = fmaf(dh * a.o, (1.0f - t) * (1.0f + t), cell);
    cell = dc * a.f;
    const float dz[cell_gates] = {dc * a.g * (a.i * (1.0f - a.i)), dc * a.before * (a.f * (1.0f - a.f)),
                                  dc * a.i * ((1.0f - a.g) * (1.0f + a.g)), dh * t * (a.o * (1.0f - a.o))};
    float* const grad = b_.grad_z + cell_gates * (row * h_stride_ + offset_) + unit;
    float* const kept = states_.now + (p + lead_) * stride_ + unit;
#pragma unroll
    for (int gate = 0; gate < cell_gates; ++gate) {
      grad[gate * units_] = dz[gate];
      kept[gate * units_] = dz[gate];
    }
  }

  const Backward& b_;
  const Sweep sweep_;
  const int units_, stride_, lead_;  // lead: rows of zeros before the first
  const std::int64_t offset_, h_stride_;
  BlockStates states_;
  const BlockWeights weights_;
};

template <int rows, bool on_chip>
__global__ void __launch_bounds__(block_threads) sweep_backward(Backward b) {
  const std::int64_t floats_before = on_chip ? b.shape.floats() : 0;
  BackwardSweep<rows>(b, state_memory<on_chip>(b.shape, b.memory), floats_before).run();
}

// All sweeps of an op, whose recurrent weights are w.
template <class Op>
void run_backward(const Op& op, const float* w, Backward b) {
  if (b.all.units == 0 || b.all.blocks() == 0) return;
  const int depth = b.all.taps * b.all.units;
  const SweepKernels<Backward> kernels = {sweep_backward<narrow_rows, false>, sweep_backward<narrow_rows, true>,
                                          sweep_backward<wide_rows, true>};
  const SweepPlan plan = plan_sweeps(op, b.all, depth, cell_gates * b.all.units, kernels);
  const std::int64_t packed = std::int64_t{1} * b.all.sweeps * depth * b.all.units;
  const std::int64_t floats = plan.on_chip ? 0 : b.all.blocks() * plan.shape.floats();
  DeviceScratch scratch(op, DeviceScratch::bytes<float4>(packed) + DeviceScratch::bytes<float>(floats));
  float4* weights = scratch.carve<float4>(packed);
  for_each_element(op, packed, PackUnits{w, b.all.taps, b.all.units, weights});
  b.weights = {weights, depth, plan.staged};
  b.shape = plan.shape;
  b.memory = plan.on_chip ? nullptr : scratch.carve<float>(floats);
  launch_sweeps(op, b.all, plan, kernels, b);
}

// --- gradients of the weights ----------------------------------------------------------------------------------------

constexpr std::int64_t enough_blocks = 512, least_rows = 64;  // of a part

// What meets the gates of each position: the inputs x of sequences, then for each tap the states before.
struct Met {
  Sweeps all;
  const float* x;  // (rows, depth)
  int depth;
  const float *h, *h0;  // h0: (sequences, units), or none
  const float* grad_z;

  GENCORE_INLINE int lines() const { return depth + all.taps * all.units; }
  GENCORE_INLINE int columns() const { return cell_gates * all.units; }
  GENCORE_INLINE std::int64_t rows() const { return all.count * all.pixels(); }
  GENCORE_INLINE std::int64_t size() const { return std::int64_t{1} * all.sweeps * lines() * columns(); }
};

// Positions [at, end), by row of the arrays. A thread has one line of the left factor, an input or a unit of what a tap
// meets, and adjacent rows of it `apart` from each other.
template <int rows>
struct MetSteps {
  using Own = StepTile<rows, tile_units>;
  using Element = float;
  using A = typename Own::template Share<rows, false>;
  using B = typename Own::template Share<tile_units, false>;
  static constexpr int apart = block_threads / A::lines;

  const Met& met;
  std::int64_t at, end;
  const float *data = nullptr, *initial = nullptr, *grad;  // at the thread's first row; of h0's first sequence
  std::int64_t stride = 0;
  int down = 0, right = 0;  // from a position to what it meets
  int left;                 // columns
  int x, y;                 // of the thread's first row

  __device__ MetSteps(const Met& met, int sweep, int line, int first_column, std::int64_t begin, std::int64_t end)
      : met(met), at(begin), end(end), left(met.columns() - first_column - B::line(0)) {
    const Sweeps& all = met.all;
    const std::int64_t first = begin + A::depth(0);
    grad = met.grad_z + ((begin + B::depth(0)) * all.sweeps + sweep) * met.columns() + first_column + B::line(0);
    std::int64_t row, column, image, own;
    divide(first, begin < end ? all.width : 1, row, column);
    divide(row, begin < end ? all.height : 1, image, own);
    x = static_cast<int>(column);
    y = static_cast<int>(own);
    line += A::line(0);
    if (line < met.depth) {
      stride = met.depth;
      data = met.x + first * stride + line;
    } else if (line < met.lines()) {
      const int tap = (line - met.depth) / all.units, unit = (line - met.depth) % all.units;
      meet(all, sweep, tap);
      stride = all.sweeps * all.units;
      data = met.h + (first + down * all.width + right) * stride + sweep * all.units + unit;
      if (met.h0 != nullptr) initial = met.h0 + unit;
    }
  }
  __device__ void meet(const Sweeps& all, int sweep, int tap) {
    if (all.order == Order::sequences) {
      right = -1;
    } else if (all.order == Order::rows) {
      down = -1;
      right = tap - all.taps / 2;
    } else if (tap == 0) {
      down = -1;
    } else {
      right = sweep == 0 ? -1 : 1;
    }
  }
  // So many rows on.
  __device__ void advance(int by, int& column, int& row) const {
    column += by;
    while (column >= met.all.width) {
      column -= met.all.width;
      if (++row == met.all.height) row = 0;
    }
  }
  __device__ bool valid() const { return at < end; }
  __device__ void next() {
    at += tile_depth;
    data += tile_depth * stride;
    grad += tile_depth * met.all.sweeps * met.columns();
    advance(tile_depth, x, y);
  }
  __device__ void fetch(A& a, B& b) const {
    int column = x, row = y;
    a.fetch([&](int s, int, int t) {
      if (s > 0) advance(apart, column, row);
      if (at + t >= end || data == nullptr) return 0.0f;
      if (row + down >= 0 && column + right >= 0 && column + right < met.all.width)
        return __ldg(data + s * apart * stride);
      return initial == nullptr ? 0.0f : initial[(at + t) / met.all.width * met.all.units];
    });
    const std::int64_t step = block_threads / B::lines * met.all.sweeps * met.columns();
    b.fetch([&](int s, int, int t) { return at + t < end && left > 0 ? __ldg(grad + s * step) : 0.0f; });
  }
};

// How the result is cut: tiles of lines and columns, parts of the positions.
struct Parts {
  int down, across;
  std::int64_t count;
};

template <int rows>
__global__ void __launch_bounds__(block_threads, 2) sum_positions(Met met, Parts parts, float* sums) {
  using Own = StepTile<rows, tile_units>;
  __shared__ typename Own::Memory memory;
  const int tiles = parts.down * parts.across, tile = static_cast<int>(blockIdx.x) % tiles;
  std::int64_t part, sweep;
  divide(blockIdx.x / tiles, met.all.sweeps, part, sweep);
  const int first_line = tile / parts.across * Own::height, first_column = tile % parts.across * Own::width;
  MetSteps<rows> steps(met, static_cast<int>(sweep), first_line, first_column, met.rows() * part / parts.count,
                       met.rows() * (part + 1) / parts.count);
  float sum[rows][tile_units] = {};
  Own::sum_up(memory, steps, sum);
  float* const own = sums + part * met.size() + sweep * met.lines() * met.columns();
  Own::each(sum, [&](int line, int column, float value) {
    line += first_line;
    column += first_column;
    if (line < met.lines() && column < met.columns()) {
      own[static_cast<std::int64_t>(line) * met.columns() + column] = value;
    }
  });
}

// Parts in order; the first elements to `of_inputs`, the others to `of_states`.
struct AddParts {
  const float* sums;
  std::int64_t parts, size, first;
  float *of_inputs, *of_states;

  __device__ void operator()(std::int64_t i) const {
    double total = 0;
    for (std::int64_t p = 0; p < parts; ++p) total += static_cast<double>(sums[p * size + i]);
    (i < first ? of_inputs[i] : of_states[i - first]) = static_cast<float>(total);
  }
};

template <class Op>
void weight_gradients(const Op& op, const Met& met, float* of_inputs, float* of_states) {
  const std::int64_t size = met.size();
  if (size == 0) return;
  const auto run = [&](auto rows) {
    Parts parts{static_cast<int>(ceil_div(met.lines(), tile_side * rows)),
                static_cast<int>(ceil_div(met.columns(), tile_columns)), 0};
    const std::int64_t tiles = std::int64_t{1} * parts.down * parts.across * met.all.sweeps;
    const std::int64_t wanted = ceil_div(enough_blocks, tiles), most = ceil_div(met.rows(), least_rows);
    parts.count = most < 1 ? 1 : wanted < most ? wanted : most;
    DeviceScratch scratch(op, DeviceScratch::bytes<float>(parts.count * size));
    float* sums = scratch.carve<float>(parts.count * size);
    launch_blocks(op, parts.count * tiles, block_threads, 0, sum_positions<decltype(rows)::value>, met, parts, sums);
    const std::int64_t first = std::int64_t{1} * met.depth * met.columns();
    for_each_element(op, size, AddParts{sums, parts.count, size, first, of_inputs, of_states});
  };
  met.lines() > tile_side * 2 ? run(Number<8>{}) : run(Number<2>{});
}

// --- the ops -----------------------------------------------------------------------------------------------------------

// The bias's: a column of the gates' gradients.
struct BiasGradient {
  Matrix<const float> grad_z;
  Vector<float> out;

  __device__ std::int64_t rows(std::int64_t) const { return grad_z.shape[0]; }
  __device__ double term(std::int64_t row, std::int64_t column) const {
    return static_cast<double>(grad_z.row(row)[column]);
  }
  __device__ void put(std::int64_t column, double total) const { out[column] = static_cast<float>(total); }
};

void lstm_vjp(const LstmVjp& op) {
  const std::int64_t n = op.x.shape[0] * op.x.shape[1], depth = op.x.shape[2], gates = op.w_hidden.shape[1];
  DeviceScratch scratch(op, DeviceScratch::bytes<float>(n * gates));
  float* grad_z = scratch.carve<float>(n * gates);
  Backward b{Sweeps(op.x, op.w_hidden.shape[0])};
  b.grad_h = op.grad_h.data;
  b.gates = op.gates.data;
  b.cells = op.cells.data;
  b.grad_z = grad_z;
  b.c0 = op.c0.data;
  b.grad_c = op.grad_c.data;
  b.grad_h0 = op.grad_h0.data;
  b.grad_c0 = op.grad_c0.data;
  run_backward(op, op.w_hidden.data, b);
  weight_gradients(op, Met{b.all, op.x.data, static_cast<int>(depth), op.h.data, op.h0.data, grad_z},
                   op.grad_w_input.data, op.grad_w_hidden.data);
  for_each_column(op, gates, BiasGradient{Matrix<const float>{grad_z, {n, gates}}, op.grad_bias});
  if (!op.grad_x.given()) return;
  multiply(op, Factor<float>::of(grad_z, gates, false), Factor<float>::of(op.w_input.data, gates, true),
           Size{n, depth, gates},
           BiasThen{Matrix<float>{op.grad_x.data, {n, depth}}, nullptr, dense::Activation::identity});
}

void map_lstm_vjp(const MapLstmVjp& op) {
  Backward b{Sweeps(op.path, op.h, op.w)};
  b.grad_h = op.grad_h.data;
  b.gates = op.gates.data;
  b.cells = op.cells.data;
  b.grad_z = op.grad_z.data;
  run_backward(op, op.w.data, b);
  weight_gradients(op, Met{b.all, nullptr, 0, op.h.data, nullptr, op.grad_z.data}, nullptr, op.grad_w.data);
}

}  // namespace

void fill_recurrent_vjp(runtime::Table& table) {
  table.recurrent.LstmVjp = lstm_vjp;
  table.recurrent.MapLstmVjp = map_lstm_vjp;
}

}  // namespace gencore::cuda
