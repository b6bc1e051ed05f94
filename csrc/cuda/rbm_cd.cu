// Contrastive divergence: hidden means of the data, the chains with the hidden means of their last states, and the gradient
// from both. Six launches, whatever k is, none of which waits for the host.
//
// The limit for 784x500 and a batch of 128: two products of 50 million multiply-adds for the gradient, which the adders of
// an H100 take in 4 us; and three sides of the machine, 5 us each (rbm_chains.cuh), at k = 1.
#include "columns.cuh"
#include "rbm_chains.cuh"
#include "rbm_fields.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using rbm::CdGradient;

// Hidden means times `scale`, from sums.
struct Means {
  float* out;  // (rows, units)
  float scale;

  __device__ void put(std::int64_t row, std::int64_t unit, std::int64_t units, float field) const {
    out[row * units + unit] = logistic(field) * scale;
  }
  __device__ void put_group(const Direction& d, std::int64_t row, std::int64_t first,
                            const float (&sum)[lane_units]) const {
#pragma unroll
    for (int c = 0; c < lane_units; ++c) {
      const std::int64_t unit = lane_unit(first, c);
      if (unit < d.units) put(row, unit, d.units, sum[c] + d.bias[unit]);
    }
  }
};

// Of rows of real-valued data: their means and, where chains start from them, draws.
struct DataLayer {
  Vector<const float> c;
  Means means;
  std::uint8_t* hidden;  // nullptr: none
  Key key;
  std::int64_t step;

  __device__ void operator()(std::int64_t row, std::int64_t first, const float (&sum)[tile_units]) const {
    const UnitDraws draws({key, philox::hidden_head, static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(row)},
                          first);
    const std::int64_t units = c.shape[0];
#pragma unroll
    for (int i = 0; i < tile_units; ++i) {
      const std::int64_t unit = first + tile_side * i;
      if (unit >= units) return;
      const float field = sum[i] + c[unit];
      means.put(row, unit, units, field);
      if (hidden != nullptr) hidden[row * units + unit] = draws.drawn(i, odds_of(field));
    }
  }
};

// Of rows of binary data: their means alone.
struct DataMeans {
  ConstStates v;
  Machine m;
  Means means;

  static GENCORE_INLINE std::int64_t bytes(const Chains&) { return 0; }
  template <class Way>
  __device__ void operator()(const Way& way, BlockMemory) const {
    way.fill(way.visible, [&](std::int64_t row, std::int64_t unit) { return is_on(v, row, unit); });
    way.sums(m.to_hidden, way.visible, [&](int, std::int64_t row, std::int64_t first, const float (&sum)[lane_units]) {
      means.put_group(m.to_hidden, row, first, sum);
    });
  }
};

// The chains, from visible states or from hidden ones, and the means of their last states.
struct RunChains {
  Machine m;
  ConstStates visible, hidden;  // one of them is given
  Means first;                  // of the visible states they start from; optional
  Means last;
  Matrix<std::uint8_t> out;
  Key key;
  std::int64_t k, first_step;

  static GENCORE_INLINE std::int64_t bytes(const Chains&) { return 0; }

  template <class Way>
  __device__ void operator()(const Way& way, BlockMemory) const {
    if (hidden.given()) {
      way.fill(way.hidden, [&](std::int64_t row, std::int64_t unit) { return is_on(hidden, row, unit); });
    } else {
      way.fill(way.visible, [&](std::int64_t row, std::int64_t unit) { return is_on(visible, row, unit); });
    }
    for (std::int64_t i = 0; i < k; ++i) {
      if (i > 0 || !hidden.given()) {
        way.draw(m.to_hidden, way.visible, way.hidden,
                 [&](int, std::int64_t row, std::int64_t group, const float (&sum)[lane_units]) {
          if (i == 0 && first.out != nullptr) first.put_group(m.to_hidden, row, group, sum);
          return drawn(m.to_hidden, philox::hidden_head, i, row, group, sum);
        });
      }
      way.draw(m.to_visible, way.hidden, way.visible,
               [&](int, std::int64_t row, std::int64_t group, const float (&sum)[lane_units]) {
        return drawn(m.to_visible, philox::visible_head, i, row, group, sum);
      });
    }
    way.sums(m.to_hidden, way.visible, [&](int, std::int64_t row, std::int64_t group, const float (&sum)[lane_units]) {
      last.put_group(m.to_hidden, row, group, sum);
    });
    way.each(way.visible, [&](int, std::int64_t row, std::int64_t unit, bool on) { out.row(row)[unit] = on; });
  }

  __device__ unsigned drawn(const Direction& d, philox::Domain domain, std::int64_t step, std::int64_t row,
                            std::int64_t group, const float (&sum)[lane_units]) const {
    Odds odds[lane_units];
#pragma unroll
    for (int c = 0; c < lane_units; ++c) odds[c] = odds_of(sum[c] + d.bias_of(lane_unit(group, c)));
    return draw_group({key, domain, static_cast<std::uint64_t>(first_step + step), static_cast<std::uint64_t>(row)},
                      group, d.units, odds);
  }
};

// --- the gradient ------------------------------------------------------------------------------------------------------

// One side of it, data or model.
struct Phase {
  ConstStates v;
  float* hidden;           // means of the hidden units, each divided by the number of rows
  float *mean_v, *mean_h;  // over the rows
};

Phase carve_phase(DeviceScratch& scratch, const ConstStates& v, std::int64_t n_hidden) {
  Phase p;
  p.v = v;
  p.hidden = scratch.carve<float>(v.shape[0] * n_hidden);
  p.mean_v = scratch.carve<float>(v.shape[1]);
  p.mean_h = scratch.carve<float>(n_hidden);
  return p;
}

std::size_t phase_bytes(const ConstStates& v, std::int64_t n_hidden) {
  return DeviceScratch::bytes<float>(v.shape[0] * n_hidden) + DeviceScratch::bytes<float>(v.shape[1]) +
         DeviceScratch::bytes<float>(n_hidden);
}

// mean_v and mean_h of both phases, one behind the other.
struct MeansOfColumns {
  Phase data, model;
  std::int64_t n_visible, n_hidden;
  Vector<float> mean_v, mean_h;  // of the data; optional

  struct Place {
    bool of_data, of_visible;
    std::int64_t unit;
  };
  __device__ Place place(std::int64_t column) const {
    const std::int64_t half = n_visible + n_hidden, at = column % half;
    return {column < half, at < n_visible, at < n_visible ? at : at - n_visible};
  }
  __device__ const Phase& phase(const Place& p) const { return p.of_data ? data : model; }
  __device__ std::int64_t rows(std::int64_t column) const { return phase(place(column)).v.shape[0]; }
  __device__ double term(std::int64_t row, std::int64_t column) const {
    const Place p = place(column);
    if (p.of_visible) return static_cast<double>(state_value(phase(p).v, row, p.unit));
    return static_cast<double>(phase(p).hidden[row * n_hidden + p.unit]);
  }
  __device__ void put(std::int64_t column, double total) const {
    const Place p = place(column);
    const Phase& of = phase(p);
    const float mean = static_cast<float>(p.of_visible ? total / static_cast<double>(of.v.shape[0]) : total);
    (p.of_visible ? of.mean_v : of.mean_h)[p.unit] = mean;
    const Vector<float>& out = p.of_visible ? mean_v : mean_h;
    if (p.of_data && out.given()) out[p.unit] = mean;
  }
};

// grad_w = E_d[v H'] - E_m[v H'] - mu dh' - dv lambda'.
template <int rows, class T>
__global__ void __launch_bounds__(block_threads, 2) weight_gradient(CdGradient op, Phase data, Phase model) {
  __shared__ typename Tile<rows>::Memory memory;
  const Tile<rows> tile(memory);
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  const std::int64_t across = (n_hidden + tile_columns - 1) / tile_columns;
  const std::int64_t i0 = blockIdx.x / across * Tile<rows>::height, j0 = blockIdx.x % across * tile_columns;
  float sum[rows][tile_units] = {}, less[rows][tile_units] = {};
  const auto means = [&](const Phase& p) { return Factor<float>{p.hidden, n_hidden, 1}; };
  tile.add(Factor<T>{static_cast<const T*>(data.v.data), 1, n_visible}, means(data), n_visible, n_hidden,
           data.v.shape[0], i0, j0, sum);
  tile.add(Factor<std::uint8_t>{static_cast<const std::uint8_t*>(model.v.data), 1, n_visible}, means(model), n_visible,
           n_hidden, model.v.shape[0], i0, j0, less);
#pragma unroll
  for (int r = 0; r < rows; ++r) {
#pragma unroll
    for (int c = 0; c < tile_units; ++c) sum[r][c] -= less[r][c];
  }
  tile.each_row(sum, [&](int row, const float (&own)[tile_units]) {
    const std::int64_t i = i0 + row;
    if (i >= n_visible) return;
    const float dv = data.mean_v[i] - model.mean_v[i];
#pragma unroll
    for (int c = 0; c < tile_units; ++c) {
      const std::int64_t j = j0 + tile.x + tile_side * c;
      if (j >= n_hidden) return;
      float g = own[c];
      if (op.offset_v.given()) {
        g = g - op.offset_v[i] * (data.mean_h[j] - model.mean_h[j]) - dv * op.offset_h[j];
      }
      op.grad_w.row(i)[j] = g;
    }
  });
}

template <class T>
void launch_weight_gradient(const CdGradient& op, const Phase& data, const Phase& model) {
  const std::int64_t across = ceil_div(op.w.shape[1], tile_columns);
  const bool large = ceil_div(op.w.shape[0], tile_side * 4) * across >= limits_of(op.name, op.device).multiprocessors;
  const std::int64_t tiles = ceil_div(op.w.shape[0], tile_side * (large ? 4 : 2)) * across;
  launch_blocks(op, tiles, block_threads, 0, large ? weight_gradient<4, T> : weight_gradient<2, T>, op, data, model);
}

// grad_b = dv - grad_w lambda.
struct VisibleGradient {
  CdGradient op;
  const float *data, *model;  // means

  __device__ void operator()(const Team& team, std::int64_t i, bool exists) const {
    double dot = 0;
    for (std::int64_t j = team.rank; exists && op.offset_h.given() && j < op.w.shape[1]; j += team.size) {
      dot += static_cast<double>(op.grad_w.row(i)[j]) * static_cast<double>(op.offset_h[j]);
    }
    dot = team.sum(dot);
    if (exists && team.rank == 0) op.grad_b[i] = static_cast<float>(static_cast<double>(data[i] - model[i]) - dot);
  }
};

// grad_c = dh - grad_w' mu.
struct HiddenGradient {
  CdGradient op;
  const float *data, *model;

  __device__ std::int64_t rows(std::int64_t) const { return op.offset_v.given() ? op.w.shape[0] : 0; }
  __device__ double term(std::int64_t i, std::int64_t j) const {
    return static_cast<double>(op.grad_w.row(i)[j]) * static_cast<double>(op.offset_v[i]);
  }
  __device__ void put(std::int64_t j, double total) const {
    op.grad_c[j] = static_cast<float>(static_cast<double>(data[j] - model[j]) - total);
  }
};

void cd_gradient(const CdGradient& op) {
  const bool persistent = op.chains.given(), real = op.v.type == StateType::f32;
  const std::int64_t n = op.v.shape[0], chains = op.chains_out.shape[0];
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  const ConstStates last = op.chains_out;
  const std::int64_t drawn = real && !persistent ? n * n_hidden : 0;
  DeviceScratch scratch(op, Machine::bytes(op) + phase_bytes(op.v, n_hidden) + phase_bytes(last, n_hidden) +
                                DeviceScratch::bytes<std::uint8_t>(drawn));
  const Machine m = pack_machine(op, scratch);
  const Phase data = carve_phase(scratch, op.v, n_hidden), model = carve_phase(scratch, last, n_hidden);
  const Means data_means{data.hidden, 1.0f / static_cast<float>(n)},
      model_means{model.hidden, 1.0f / static_cast<float>(chains)};
  RunChains run{m, op.v, {}, {nullptr, 1}, model_means, op.chains_out, op.key, op.k, op.first_step};
  if (persistent) run.visible = op.chains;
  if (real) {
    std::uint8_t* hidden = persistent ? nullptr : scratch.carve<std::uint8_t>(drawn);
    multiply(op, Factor<float>::of(op.v.data, n_visible, false), Factor<float>::of(op.w.data, n_hidden, false),
             Size{n, n_hidden, n_visible}, DataLayer{op.c, data_means, hidden, op.key, op.first_step});
    if (!persistent) run.hidden = {hidden, {n, n_hidden}, StateType::u8};
  } else if (persistent) {
    for_chains(op, n, DataMeans{op.v, m, data_means});
  } else {
    run.first = data_means;
  }
  for_chains(op, chains, run);
  for_each_column(op, 2 * (n_visible + n_hidden),
                  MeansOfColumns{data, model, n_visible, n_hidden, op.mean_v, op.mean_h});
  (real ? launch_weight_gradient<float> : launch_weight_gradient<std::uint8_t>)(op, data, model);
  for_each_row(op, n_visible, n_hidden, VisibleGradient{op, data.mean_v, model.mean_v});
  for_each_column(op, n_hidden, HiddenGradient{op, data.mean_h, model.mean_h});
}

}  // namespace

void fill_rbm_cd(runtime::Table& table) { table.rbm.CdGradient = cd_gradient; }

}  // namespace gencore::cuda
