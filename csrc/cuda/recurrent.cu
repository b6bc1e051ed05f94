// LSTM along sequences and along the rows and diagonals of images: what comes from the inputs in one product, then all steps
// in one launch. recurrent.cuh says how, and what limits it.
//
// Sums have the CPU's order: those of map_lstm and lstm_cell are its bits. lstm adds the chain over the states to that over
// the inputs, which the CPU continues; without `gates` that takes 16 N T H bytes more.
#include "recurrent.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using recurrent::Lstm;
using recurrent::LstmCell;
using recurrent::MapLstm;

// What a sweep reads and writes. Rows are those of Sweep; z may be the memory of gates, which then replace it.
struct Forward {
  Sweeps all;
  PackedWeights weights{};  // of each tap, padded to whole fours of units: the four gates
  StateShape shape{};
  float* memory = nullptr;  // of the states of all blocks, where they are not in shared memory
  const float* z = nullptr;
  float *h = nullptr, *gates = nullptr, *cells = nullptr;  // gates, cells: both or neither
  const float *h0 = nullptr, *c0 = nullptr;                // (sequences, units), or none
  float* c_last = nullptr;                                 // (sequences, units), or none
};

// row k of a unit's packed weights: (tap, unit before) as they meet the states; 0 where padded.
struct PackGates {
  const float* w;  // (sweeps taps, units, 4 units)
  std::int64_t units;
  float4* out;

  __device__ void operator()(std::int64_t i) const {
    std::int64_t row, unit, tap, before;
    divide(i, units, row, unit);
    divide(row, whole_fours(units), tap, before);
    const float* from = w + (tap * units + before) * cell_gates * units + unit;
    out[i] = before < units ? float4{from[0], from[units], from[2 * units], from[3 * units]} : float4{0, 0, 0, 0};
  }
};

// sum[r][gate] += the states of row r times the weights of one unit, over `count` rows of them, a multiple of 4.
template <int rows>
__device__ inline void add_gates(const float4* w, int units, int count, const float* state, int stride,
                                 float (&sum)[rows][cell_gates]) {
#pragma unroll 2
  for (int k = 0; k < count; k += 4) {
    float4 weight[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) weight[t] = w[(k + t) * units];
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float h[4];
      load_adjacent<4>(state + r * stride + k, h);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        sum[r][0] = fmaf(h[t], weight[t].x, sum[r][0]);
        sum[r][1] = fmaf(h[t], weight[t].y, sum[r][1]);
        sum[r][2] = fmaf(h[t], weight[t].z, sum[r][2]);
        sum[r][3] = fmaf(h[t], weight[t].w, sum[r][3]);
      }
    }
  }
}

// One sweep of a block.
template <int rows>
class ForwardSweep {
 public:
  __device__ ForwardSweep(const Forward& f, float* memory, std::int64_t floats_before)
      : f_(f),
        sweep_(f.all.of(blockIdx.x)),
        units_(f.all.units),
        stride_(f.shape.stride),
        offset_(f.all.sweep(blockIdx.x) * units_),
        h_stride_(f.all.sweeps * units_),
        states_(f.shape, memory),
        weights_(f.weights, f.all.sweep(blockIdx.x), units_, floats_before) {}

  __device__ void run() {
    begin();
    for (int d = 0; d < sweep_.steps; ++d) {
      const int end = sweep_.end(d);
      for_each_unit<rows>(sweep_.first(d), end, units_, [&](int p, int unit) { step(d, p, end, unit); });
      states_.turn();
    }
    if (f_.c_last == nullptr) return;
    each_initial([&](std::int64_t at, int, int, float& cell) { f_.c_last[at] = cell; });
  }

 private:
  // body(element of h0, position, unit, cell) for the block's sequences.
  template <class Body>
  __device__ void each_initial(const Body& body) {
    const std::int64_t first = f_.all.first(blockIdx.x) * units_;
    for (int i = static_cast<int>(threadIdx.x); i < sweep_.positions * units_; i += block_threads) {
      body(first + i, i / units_, i % units_, states_.cells[i]);
    }
  }
  __device__ void begin() {
    if (f_.h0 != nullptr || f_.c0 != nullptr) {
      each_initial([&](std::int64_t at, int p, int unit, float& cell) {
        if (f_.h0 != nullptr) states_.before[(p + sweep_.up) * stride_ + unit] = f_.h0[at];
        if (f_.c0 != nullptr) cell = f_.c0[at];
      });
    }
    __syncthreads();
  }

  __device__ void sums_before(int d, int p, int unit, float (&z)[cell_gates]) const {
    const float* from = f_.z + cell_gates * (sweep_.row(p, d) * h_stride_ + offset_) + unit;
#pragma unroll
    for (int gate = 0; gate < cell_gates; ++gate) z[gate] = from[gate * units_];
  }
  // A unit of the positions from p on, those before `end`. Few positions ask for z, which does not depend on the step
  // before, beforehand; for many there are no registers, and the wait is shared by more.
  __device__ void step(int d, int p, int end, int unit) {
    constexpr bool early = rows == narrow_rows;
    float z[rows][cell_gates] = {}, sum[rows][cell_gates] = {};
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      if (early && p + r < end) sums_before(d, p + r, unit, z[r]);
    }
    const int staged = f_.weights.staged;
    const float* met = states_.before + p * stride_;
    add_gates(weights_.staged + unit, units_, staged, met, stride_, sum);
    add_gates(weights_.all + staged * units_ + unit, units_, f_.weights.depth - staged, met + staged, stride_, sum);
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      if (p + r >= end) continue;
      if (!early) sums_before(d, p + r, unit, z[r]);
      finish(sweep_.row(p + r, d), p + r, unit, sum[r], z[r]);
    }
  }
  __device__ void finish(std::int64_t row, int p, int unit, const float (&sum)[cell_gates],
                         const float (&z)[cell_gates]) {
    float& own = states_.cells[p * units_ + unit];
    const Cell cell = cell_step(sum[0] + z[0], sum[1] + z[1], sum[2] + z[2], sum[3] + z[3], own);
    own = cell.c;
    states_.now[(p + sweep_.up) * stride_ + unit] = cell.h;
    const std::int64_t at = row * h_stride_ + offset_ + unit;
    f_.h[at] = cell.h;
    if (f_.gates == nullptr) return;
    float* const gates = f_.gates + cell_gates * (row * h_stride_ + offset_) + unit;
    gates[0] = cell.i;
    gates[units_] = cell.f;
    gates[2 * units_] = cell.g;
    gates[3 * units_] = cell.o;
    f_.cells[at] = cell.c;
  }

  const Forward& f_;
  const Sweep sweep_;
  const int units_, stride_;
  const std::int64_t offset_, h_stride_;
  BlockStates states_;
  const BlockWeights weights_;
};

template <int rows, bool on_chip>
__global__ void __launch_bounds__(block_threads) sweep_forward(Forward f) {
  const std::int64_t floats_before = on_chip ? f.shape.floats() : 0;
  ForwardSweep<rows>(f, state_memory<on_chip>(f.shape, f.memory), floats_before).run();
}

// All sweeps of an op, whose recurrent weights are w.
template <class Op>
void run_forward(const Op& op, const float* w, Forward f) {
  if (f.all.units == 0 || f.all.blocks() == 0) return;
  const int padded = static_cast<int>(whole_fours(f.all.units)), depth = f.all.taps * padded;
  const SweepKernels<Forward> kernels = {sweep_forward<narrow_rows, false>, sweep_forward<narrow_rows, true>,
                                         sweep_forward<wide_rows, true>};
  const SweepPlan plan = plan_sweeps(op, f.all, depth, padded, kernels);
  const std::int64_t packed = std::int64_t{1} * f.all.sweeps * depth * f.all.units;
  const std::int64_t floats = plan.on_chip ? 0 : f.all.blocks() * plan.shape.floats();
  DeviceScratch scratch(op, DeviceScratch::bytes<float4>(packed) + DeviceScratch::bytes<float>(floats));
  float4* weights = scratch.carve<float4>(packed);
  for_each_element(op, packed, PackGates{w, f.all.units, weights});
  f.weights = {weights, depth, plan.staged};
  f.shape = plan.shape;
  f.memory = plan.on_chip ? nullptr : scratch.carve<float>(floats);
  launch_sweeps(op, f.all, plan, kernels, f);
}

void lstm(const Lstm& op) {
  const std::int64_t n = op.x.shape[0] * op.x.shape[1], depth = op.x.shape[2], gates = op.w_hidden.shape[1];
  const std::int64_t kept = op.gates.given() ? 0 : n * gates;
  DeviceScratch scratch(op, DeviceScratch::bytes<float>(kept));
  float* z = op.gates.given() ? op.gates.data : scratch.carve<float>(kept);
  multiply(op, Factor<float>::of(op.x.data, depth, false), Factor<float>::of(op.w_input.data, gates, false),
           Size{n, gates, depth}, BiasThen{Matrix<float>{z, {n, gates}}, op.bias.data, dense::Activation::identity});
  Forward f{Sweeps(op.x, op.w_hidden.shape[0])};
  f.z = z;
  f.h = op.h.data;
  f.gates = op.gates.data;
  f.cells = op.cells.data;
  f.h0 = op.h0.data;
  f.c0 = op.c0.data;
  f.c_last = op.c.data;
  run_forward(op, op.w_hidden.data, f);
}

void map_lstm(const MapLstm& op) {
  Forward f{Sweeps(op.path, op.h, op.w)};
  f.z = op.z.data;
  f.h = op.h.data;
  f.gates = op.gates.data;
  f.cells = op.cells.data;
  run_forward(op, op.w.data, f);
}

// --- one step ---------------------------------------------------------------------------------------------------------

struct OneStep {
  LstmCell op;

  __device__ void operator()(std::int64_t i) const {
    const std::int64_t units = op.before.shape[1];
    std::int64_t row, unit;
    divide(i, units, row, unit);
    const float *x = op.input.row(row) + unit, *s = op.state.row(row) + unit;
    const Cell cell = cell_step(s[0] + x[0], s[units] + x[units], s[2 * units] + x[2 * units],
                                s[3 * units] + x[3 * units], op.before.row(row)[unit]);
    op.c.row(row)[unit] = cell.c;
    op.h.row(row)[unit] = cell.h;
  }
};

// The limit: 48 bytes a unit.
void lstm_cell(const LstmCell& op) { for_each_element(op, op.before.size(), OneStep{op}); }

}  // namespace

void fill_recurrent(runtime::Table& table) {
  table.recurrent.Lstm = lstm;
  table.recurrent.MapLstm = map_lstm;
  table.recurrent.LstmCell = lstm_cell;
}

}  // namespace gencore::cuda
