// Samples of stacks of masked layers, a block a row. What is known is pushed on: a dimension that is drawn as 1, or a hidden
// unit when the last that it sees is drawn, adds its weights to the sums of the units that see it, and so every unit is
// computed once. Inputs are pushed by ascending degree, so each sum is MaskedLinear's chain. A thread has every 256th unit of
// a layer, reads weights side by side with its neighbours, and meets the block where one layer reads what another has summed.
//
// The limit: a row reads the weights of its ones and of all hidden units once, from the second-level cache: 1.8 MB for
// 784-500-784 with 110 ones, 0.4 us a row at 5 TB/s; below as many rows as multiprocessors, the chain of 610 pushes with up
// to two barriers for each of 784 dimensions.
#include "activation.cuh"
#include "degrees.cuh"
#include "gencore/masked_sample.h"
#include "table.h"

namespace gencore::cuda {
namespace {

using autoregressive::MaskedSample;

constexpr int most_layers = 64;  // that a launch's arguments have room for

// A layer from its inputs' side: the dimensions, or hidden units.
struct Layer {
  const std::int64_t* degree;
  const int* lies;  // by ascending degree
  const float *w, *bias;
  int inputs, sums;  // how many; where the sums that make them begin (of hidden units)
};

struct Net {
  Layer layers[most_layers];
  const float* direct;  // nullptr: none
  int count, dims;
  int logits, past;   // where the sums of the logits begin, and those past the hidden layers
  std::int64_t size;  // of all sums
};

struct Order {
  Vector<const std::int64_t> degrees;
  int* lies;
  __device__ void operator()(const Team& team, std::int64_t i, bool exists) const {
    const int place = place_of(team, degrees, i, exists);
    if (exists && team.rank == 0) lies[place] = static_cast<int>(i);
  }
};

// A row of mask or given: one for all, or one for each.
struct Known {
  const std::uint8_t* data;
  std::int64_t stride;
  explicit Known(const Matrix<const std::uint8_t>& m) : data(m.data), stride(m.shape[0] == 1 ? 0 : m.shape[1]) {}
  __device__ bool operator()(std::int64_t row, std::int64_t d) const { return data[row * stride + d] != 0; }
};

struct Rows {
  Matrix<const float> noise;
  Known given, mask;
  bool some_known;
  dense::Activation activation;
  Matrix<std::uint8_t> out;
};

// The sums of the units that see an input get its weights, times its value.
__device__ void push(float value, const float* w, std::int64_t degree, const std::int64_t* unit_degrees, int units,
                     bool strict, float* sums) {
  for (int j = static_cast<int>(threadIdx.x); j < units; j += block_threads) {
    if (sees(unit_degrees[j], degree, strict)) sums[j] = fmaf(value, __ldg(w + j), sums[j]);
  }
}

__global__ void __launch_bounds__(block_threads) draw_masked(Net net, Rows rows, float* memory) {
  const std::int64_t row = blockIdx.x;
  float* sums = memory == nullptr ? reinterpret_cast<float*>(dynamic_shared()) : memory + row * net.size;
  for (std::int64_t j = threadIdx.x; j < net.size; j += block_threads) sums[j] = 0;
  __syncthreads();
  int pushed[most_layers] = {};
  const Layer& first = net.layers[0];
  // From an input of layer l: to the next layer, or as the last one to the logits.
  const auto push_on = [&](int l, int input, float value) {
    const bool last = l + 1 == net.count;
    const Layer& from = net.layers[l];
    const Layer& to = net.layers[last ? 0 : l + 1];
    push(value, from.w + static_cast<std::int64_t>(input) * to.inputs, from.degree[input], to.degree, to.inputs, last,
         sums + (last ? net.logits : to.sums));
  };
  for (int t = 0; t < net.dims; ++t) {
    const int d = first.lies[t];
    const std::int64_t degree = first.degree[d];
    for (int l = 1; l < net.count; ++l) {  // all that this dimension may see is known
      const Layer& layer = net.layers[l];
      const int before = pushed[l];
      for (; pushed[l] < layer.inputs; ++pushed[l]) {
        const int unit = layer.lies[pushed[l]];
        if (layer.degree[unit] >= degree) break;
        push_on(l, unit, activated(rows.activation, sums[layer.sums + unit] + net.layers[l - 1].bias[unit]));
      }
      if (pushed[l] != before) __syncthreads();
    }
    bool one;
    if (rows.some_known && rows.mask(row, d)) {
      one = rows.given(row, d);
    } else {
      float logit = sums[net.logits + d] + net.layers[net.count - 1].bias[d];
      if (net.direct != nullptr) logit += sums[net.past + d];
      one = logit > rows.noise.row(row)[d];
    }
    if (threadIdx.x == 0) rows.out.row(row)[d] = static_cast<std::uint8_t>(one);
    if (!one) continue;
    push_on(0, d, 1.0f);
    if (net.direct != nullptr) {
      push(1.0f, net.direct + static_cast<std::int64_t>(d) * net.dims, degree, first.degree, net.dims, true,
           sums + net.past);
    }
    __syncthreads();
  }
}

void masked_sample(const MaskedSample& op) {
  if (op.out.size() == 0) return;
  check::in_range(op.name, "the length of degrees, on a device,", op.degrees.count, 1, most_layers);
  Net net = {};
  net.count = static_cast<int>(op.degrees.count);
  net.dims = static_cast<int>(op.degrees[0].shape[0]);
  std::int64_t degrees = 0;
  for (int l = 0; l < net.count; ++l) {
    const std::int64_t inputs = op.degrees[l].shape[0];
    net.layers[l] = {op.degrees[l].data,       nullptr,
                     op.weights[l].data,       op.biases[l].data,
                     static_cast<int>(inputs), static_cast<int>(net.size)};
    degrees += (inputs + 63) / 64 * 64;
    if (l > 0) net.size += inputs;
  }
  net.logits = static_cast<int>(net.size);
  net.past = net.logits + net.dims;
  net.direct = op.direct.given() ? op.direct.data : nullptr;
  net.size += op.direct.given() ? 2 * net.dims : net.dims;

  const std::size_t bytes = static_cast<std::size_t>(net.size) * sizeof(float);
  const bool on_chip = bytes <= most_shared(op, draw_masked);
  const std::int64_t floats = on_chip ? 0 : op.out.shape[0] * net.size;
  DeviceScratch scratch(op, DeviceScratch::bytes<int>(degrees) + DeviceScratch::bytes<float>(floats));
  for (int l = 0; l < net.count; ++l) {
    int* lies = scratch.carve<int>(op.degrees[l].shape[0]);
    net.layers[l].lies = lies;
    for_each_row(op, op.degrees[l].shape[0], op.degrees[l].shape[0], Order{op.degrees[l], lies});
  }
  float* memory = on_chip ? nullptr : scratch.carve<float>(floats);
  const Rows rows{op.noise, Known(op.given), Known(op.mask), op.mask.given(), op.activation, op.out};
  launch_blocks(op, op.out.shape[0], block_threads, on_chip ? bytes : 0, draw_masked, net, rows, memory);
}

}  // namespace

void fill_masked_sample(runtime::Table& table) { table.autoregressive.MaskedSample = masked_sample; }

}  // namespace gencore::cuda
