// One side of the machine given the other: means, draws, and what follows from the fields alone. Each is the product of
// gemm.cuh, states being bytes or (also real) floats, with the rest done to its sums.
//
// A thread's eight columns, 16 apart, are the eight units whose heads come from one block of Philox.
#include "gemm.cuh"
#include "rbm_fields.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using rbm::FreeEnergy;
using rbm::Layer;

// out = logistic(beta (sums + bias)).
struct LayerMean {
  Vector<const float> bias;
  float beta;
  Matrix<float> out;

  __device__ void operator()(std::int64_t row, std::int64_t first, const float (&sum)[tile_units]) const {
#pragma unroll
    for (int c = 0; c < tile_units; ++c) {
      const std::int64_t unit = first + tile_side * c;
      if (unit < out.shape[1]) out.row(row)[unit] = logistic((sum[c] + bias[unit]) * beta);
    }
  }
};

template <class Op>
void layer_mean(const Op& op) {
  const Layer layer = op.layer();
  multiply_layer(op, layer, LayerMean{layer.bias, layer.beta, op.out});
}

// Draws with those means.
struct LayerSample {
  Vector<const float> bias;
  float beta;
  States out;
  Key key;
  philox::Domain domain;
  std::int64_t step, first_row;

  __device__ void operator()(std::int64_t row, std::int64_t first, const float (&sum)[tile_units]) const {
    const UnitDraws draws({key, domain, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(first_row + row)},
                          first);
#pragma unroll
    for (int c = 0; c < tile_units; ++c) {
      const std::int64_t unit = first + tile_side * c;
      if (unit < out.shape[1]) put_state(out, row, unit, draws.drawn(c, odds_of((sum[c] + bias[unit]) * beta)));
    }
  }
};

template <class Op>
void layer_sample(const Op& op) {
  const Layer layer = op.layer();
  multiply_layer(op, layer,
                 LayerSample{layer.bias, layer.beta, op.out, op.key,
                             layer.visible ? philox::visible_head : philox::hidden_head, op.step, op.first_row});
}

// --- free energy -------------------------------------------------------------------------------------------------------

struct Energy {
  FreeEnergy op;
  const float* fields;  // (n, n_hidden)

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
    SoftplusSum softplus;
    double visible = 0;
    if (exists) {
      for (std::int64_t j = team.rank; j < n_hidden; j += team.size) softplus.add(fields[row * n_hidden + j] * op.beta);
      for (std::int64_t i = team.rank; i < n_visible; i += team.size) {
        visible += static_cast<double>(state_value(op.v, row, i)) * static_cast<double>(op.b[i]);
      }
    }
    const double total = team.sum(static_cast<double>(op.beta) * visible + softplus.value());
    if (exists && team.rank == 0) op.out[row] = -total;
  }
};

void free_energy(const FreeEnergy& op) {
  DeviceScratch scratch(op, fields_bytes(op));
  const float* fields = hidden_fields(op, scratch);
  for_each_row(op, op.v.shape[0], op.w.shape[0] + op.w.shape[1], Energy{op, fields});
}

}  // namespace

void fill_rbm_layer(runtime::Table& table) {
  table.rbm.HiddenMean = layer_mean<rbm::HiddenMean>;
  table.rbm.VisibleMean = layer_mean<rbm::VisibleMean>;
  table.rbm.HiddenSample = layer_sample<rbm::HiddenSample>;
  table.rbm.VisibleSample = layer_sample<rbm::VisibleSample>;
  table.rbm.FreeEnergy = free_energy;
}

}  // namespace gencore::cuda
