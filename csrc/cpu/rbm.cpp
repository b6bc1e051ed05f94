// Sampling and learning of restricted Boltzmann machines. Binary states take the row-sum path; real-valued visible data
// (grey levels, means) take the dense product, which gives the same bits where both apply.
#include "../runtime/table.h"
#include "layer.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using rbm::CdGradient;
using rbm::FreeEnergy;
using rbm::GibbsChain;
using rbm::Layer;

// --- Gibbs chains ------------------------------------------------------------------------------------------------------

struct Clamp {
  const std::uint64_t* masks = nullptr;  // nullptr: nothing is clamped
  std::int64_t stride = 0, row_step = 0;
  GENCORE_INLINE const std::uint64_t* of(std::int64_t row) const {
    return masks == nullptr ? nullptr : masks + row * row_step;
  }
};

void draw_visible(const Machine& m, const std::uint64_t* hidden, std::int64_t rows, float* x, const Coordinates& at,
                  std::uint64_t* visible, const float* beta, std::int64_t beta_step, const Clamp& clamp) {
  row_sums(m.to_visible, hidden, rows, x, [&](std::int64_t r, std::int64_t first, const float* sums) {
    const F scale = splat(beta[r * beta_step]);
    std::uint64_t words[2];
    const auto draw = make_draw(at.key, at.domain, static_cast<std::uint64_t>(at.step),
                                static_cast<std::uint64_t>(at.first_row + r));
    draw_group(draw, first, m.n_visible - first, [&](int offset) {
      return with_tail((load(sums + offset) + load(m.b + first + offset)) * scale);
    }, words);
    put_group(visible, rows, r, first, m.n_visible, words, clamp.of(r), clamp.stride);
  });
}

void draw_hidden(const Machine& m, const std::uint64_t* visible, std::int64_t rows, float* x, const Coordinates& at,
                 std::uint64_t* hidden, const float* beta, std::int64_t beta_step) {
  draw_side(m.to_hidden, visible, rows, x, at, hidden,
            [&](std::int64_t r, std::int64_t first, const float* sums, int offset) {
    return with_tail((load(sums + offset) + load(m.c + first + offset)) * splat(beta[r * beta_step]));
  });
}

void gibbs_chain(const GibbsChain& op) {
  const std::int64_t n = op.v.shape[0];
  const Blocks blocks(n, false);
  const bool one_mask = op.clamp.given() && op.clamp.shape[0] == 1;
  const Blocks mask_blocks = one_mask ? Blocks(1, false) : blocks;
  Scratch scratch(Machine::bytes(op.w.shape[0], op.w.shape[1]) + Bits::bytes(blocks, op.w.shape[0]) +
                  (op.clamp.given() ? Bits::bytes(mask_blocks, op.w.shape[0]) : 0));
  const Machine m = pack_machine(op, GibbsChain::name, scratch);
  const Bits visible = Bits::carve(scratch, blocks, m.n_visible);
  if (!pack_all(op.v, blocks, visible)) runtime::reject_states(GibbsChain::name, "v", op.v);
  Bits masks{};
  if (op.clamp.given()) {
    masks = Bits::carve(scratch, mask_blocks, m.n_visible);
    if (!pack_all(op.clamp, mask_blocks, masks)) {
      runtime::reject_states(GibbsChain::name, "clamp", op.clamp);
    }
  }
  parallel_for(blocks.count(), [&](std::int64_t task) {
    const std::int64_t rows = blocks.size(task), first = blocks.first(task);
    const auto hidden_words = static_cast<std::size_t>(rows * word_count(m.n_hidden));
    Scratch local(8 * hidden_words + 4 * static_cast<std::size_t>(rows * group_columns) + 128);
    auto* hidden = local.carve<std::uint64_t>(hidden_words);
    auto* x = local.carve<float>(static_cast<std::size_t>(rows * group_columns));
    Clamp clamp;
    if (op.clamp.given()) clamp = one_mask ? Clamp{masks.data, 1, 0} : Clamp{masks.of(task), rows, 1};
    const std::int64_t beta_step = op.beta.shape[0] == 1 ? 0 : 1;
    const float* beta = op.beta.data + first * beta_step;
    for (std::int64_t i = 0; i < op.steps; ++i) {
      const std::int64_t step = op.first_step + i, row = op.first_row + first;
      draw_hidden(m, visible.of(task), rows, x, {op.key, philox::hidden_head, step, row}, hidden, beta, beta_step);
      draw_visible(m, hidden, rows, x, {op.key, philox::visible_head, step, row}, visible.of(task), beta, beta_step,
                   clamp);
    }
    unpack_states(op.v_out, first, rows, visible.of(task));
  });
}

// --- one layer ---------------------------------------------------------------------------------------------------------

void layer_mean(const Layer& layer, const Matrix<float>& means) {
  const std::int64_t units = means.shape[1];
  Scratch scratch(4 * static_cast<std::size_t>(round_up(units, group_columns)));
  const float* bias = padded_copy(scratch, layer.bias.data, units);
  for_each_group(layer.op, layer.w, layer.visible, layer.states_name, layer.states,
                 [&](std::int64_t r, std::int64_t first, const float* sums) {
    float* out = means.row(r);
    for (std::int64_t j = first; j < min_of(first + group_columns, units); j += lanes) {
      const F mean = logistic((load(sums + j - first) + load(bias + j)) * layer.beta);
      store_up_to(out + j, mean, units - j);
    }
  });
}

void layer_sample(const Layer& layer, Key key, std::int64_t step, std::int64_t first_row, const States& out) {
  const std::int64_t n = layer.states.shape[0], units = out.shape[1], words = word_count(units);
  Scratch scratch(4 * static_cast<std::size_t>(round_up(units, group_columns)) +
                  8 * static_cast<std::size_t>(n * words) + 128);
  const float* bias = padded_copy(scratch, layer.bias.data, units);
  auto* drawn = scratch.carve<std::uint64_t>(static_cast<std::size_t>(n * words));  // a block of one row each
  for_each_group(layer.op, layer.w, layer.visible, layer.states_name, layer.states,
                 [&](std::int64_t r, std::int64_t first, const float* sums) {
    const auto draw = make_draw(key, layer.visible ? philox::visible_head : philox::hidden_head,
                                static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(first_row + r));
    std::uint64_t group[2];
    draw_group(draw, first, units - first, [&](int offset) {
      return with_tail((load(sums + offset) + load(bias + first + offset)) * layer.beta);
    }, group);
    put_group(drawn + r * words, 1, 0, first, units, group, nullptr, 0);
  });
  parallel_for(ceil_div(n, 64), [&](std::int64_t task) {
    for (std::int64_t r = 64 * task; r < min_of(n, 64 * task + 64); ++r) unpack_states(out, r, 1, drawn + r * words);
  });
}

void hidden_mean(const rbm::HiddenMean& op) { layer_mean(op.layer(), op.out); }
void visible_mean(const rbm::VisibleMean& op) { layer_mean(op.layer(), op.out); }
void hidden_sample(const rbm::HiddenSample& op) { layer_sample(op.layer(), op.key, op.step, op.first_row, op.out); }
void visible_sample(const rbm::VisibleSample& op) { layer_sample(op.layer(), op.key, op.step, op.first_row, op.out); }

// --- free energy -------------------------------------------------------------------------------------------------------

double dot_visible(const ConstStates& v, std::int64_t row, const float* b) {
  const std::int64_t n = v.shape[1];
  double sum = 0;
  if (v.type == StateType::u8) {
    const auto* p = static_cast<const std::uint8_t*>(v.data) + row * n;
    for (std::int64_t i = 0; i < n; ++i) sum += p[i] * static_cast<double>(b[i]);
  } else {
    const auto* p = static_cast<const float*>(v.data) + row * n;
    for (std::int64_t i = 0; i < n; ++i) sum += p[i] * static_cast<double>(b[i]);
  }
  return sum;
}

void free_energy(const FreeEnergy& op) {
  const std::int64_t n_hidden = op.w.shape[1];
  Scratch scratch(4 * static_cast<std::size_t>(round_up(n_hidden, group_columns)));
  const float* c = padded_copy(scratch, op.c.data, n_hidden);
  for_each_group(op.name, op.w, false, "v", op.v, [&](std::int64_t r, std::int64_t first, const float* sums) {
    if (first == 0) op.out[r] = -static_cast<double>(op.beta) * dot_visible(op.v, r, op.b.data);
    SoftplusSum total;
    for (std::int64_t j = first; j < min_of(first + group_columns, n_hidden); j += lanes) {
      total.add((load(sums + j - first) + load(c + j)) * op.beta, n_hidden - j);
    }
    op.out[r] -= total.value();
  });
}

// --- contrastive divergence --------------------------------------------------------------------------------------------

// Means of the hidden units of a batch, times `scale`, packed for row sums over the batch.
struct HiddenMeans {
  Panels panels;  // rows: the batch; columns: hidden units
  float scale;
};

GENCORE_INLINE void put_means(const HiddenMeans& h, std::int64_t row, std::int64_t first, const float* sums,
                              const float* c) {
  const std::int64_t columns = h.panels.columns;
  for (std::int64_t j = first; j < min_of(first + group_columns, columns); j += lanes) {
    float* out = h.panels.at(j / tile_columns, row) + j % tile_columns;
    store(out, logistic(load(sums + j - first) + load(c + j)) * h.scale);
  }
}

// Column sums of the panels: E[H] times (rows scale), in row order.
void sum_rows(const Panels& p, float* out) {
  parallel_for(p.tiles(), [&](std::int64_t t) {
    const int vectors = p.vectors(t);
    for (int j = 0; j < vectors; ++j) {
      F total{};
      for (std::int64_t begin = 0; begin < p.rows; begin += 64) {  // in stretches, so that rounding does not pile up
        F stretch{};
        for (std::int64_t r = begin; r < min_of(begin + 64, p.rows); ++r) stretch += load(p.at(t, r) + j * lanes);
        total += stretch;
      }
      store(out + t * tile_columns + j * lanes, total);
    }
  });
}

// E[v] from transposed bits.
void mean_of_bits(const std::uint64_t* transposed, std::int64_t units, std::int64_t rows, float* out) {
  const std::int64_t stride = 64 * word_count(units);
  for (std::int64_t i = 0; i < units; ++i) {
    std::int64_t ones = 0;
    for (std::int64_t w = 0; w < word_count(rows); ++w) ones += __builtin_popcountll(transposed[w * stride + i]);
    out[i] = static_cast<float>(static_cast<double>(ones) / static_cast<double>(rows));
  }
}

void mean_of_rows(const float* v, std::int64_t rows, std::int64_t units, float* out) {
  parallel_for(ceil_div(units, 64), [&](std::int64_t task) {
    for (std::int64_t i = 64 * task; i < min_of(units, 64 * task + 64); ++i) {
      double total = 0;
      for (std::int64_t r = 0; r < rows; ++r) total += static_cast<double>(v[r * units + i]);
      out[i] = static_cast<float>(total / static_cast<double>(rows));
    }
  });
}

// One side of the gradient, data or model.
struct Phase {
  HiddenMeans means;
  std::uint64_t* transposed;  // nullptr for real-valued data
  float *mean_v, *mean_h;
};

// grad_w = E_d[v H'] - E_m[v H'] - mu dh' - dv lambda', with its two products grad_w lambda and grad_w' mu in the same
// pass. `dense_data`: the data's part already stands in grad_w.
void weight_gradient(const CdGradient& op, const Phase& data, const Phase& model, bool dense_data) {
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  const bool centred = op.offset_v.given();
  const std::int64_t blocks = ceil_div(n_visible, max_block_rows), block = ceil_div(n_visible, blocks);
  const std::int64_t groups = ceil_div(n_hidden, group_columns), padded = groups * group_columns;
  const std::int64_t bits_stride = 64 * word_count(n_visible);
  Scratch scratch(4 * static_cast<std::size_t>(2 * padded + groups * n_visible + blocks * padded) + 256);
  float* dh = scratch.carve<float>(static_cast<std::size_t>(padded));
  float* lambda = scratch.carve<float>(static_cast<std::size_t>(padded));
  float* to_b = scratch.carve<float>(static_cast<std::size_t>(groups * n_visible));  // [group][visible]
  float* to_c = scratch.carve<float>(static_cast<std::size_t>(blocks * padded));     // [block][hidden]
  for (std::int64_t j = 0; j < padded; ++j) {
    dh[j] = j < n_hidden ? data.mean_h[j] - model.mean_h[j] : 0;
    lambda[j] = centred && j < n_hidden ? op.offset_h[j] : 0;
  }
  parallel_for(blocks * groups, [&](std::int64_t task) {
    const std::int64_t group = task % groups, first = task / groups * block, rows = min_of(block, n_visible - first);
    const std::int64_t column = group * group_columns, width = min_of(group_columns, n_hidden - column);
    Scratch local(4 * static_cast<std::size_t>(rows * group_columns));
    float* x = local.carve<float>(static_cast<std::size_t>(rows * group_columns));
    // The tiles of this group as a matrix of their own.
    const auto part = [&](const Panels& p) { return Panels{p.tile(column / tile_columns), p.rows, width}; };
    const Panels of_data = dense_data ? Panels{} : part(data.means.panels), of_model = part(model.means.panels);
    Term terms[2];
    int count = 0;
    if (!dense_data) terms[count++] = {&of_data, data.transposed + first, bits_stride, false};
    terms[count++] = {&of_model, model.transposed + first, bits_stride, true};
    float* to_c_of_block = to_c + task / groups * padded + column;
    for (std::int64_t j = 0; j < group_columns; ++j) to_c_of_block[j] = 0;
    row_sums<true>(terms, count, rows, x, [&](std::int64_t r, std::int64_t, const float* sums) {
      const std::int64_t i = first + r;
      float* out = op.grad_w.row(i) + column;
      const float mu = centred ? op.offset_v[i] : 0, dv = data.mean_v[i] - model.mean_v[i];
      F dot{};
      for (std::int64_t j = 0; j < width; j += lanes) {
        const int valid = static_cast<int>(min_of(lanes, width - j));
        F g = load(sums + j);
        if (dense_data) g += valid == lanes ? load(out + j) : load_first(out + j, valid);
        if (centred) {
          g = g - mu * load(dh + column + j) - dv * load(lambda + column + j);
          dot = fma(g, load(lambda + column + j), dot);
          store(to_c_of_block + j, fma(g, splat(mu), load(to_c_of_block + j)));
        }
        store_up_to(out + j, g, width - j);
      }
      to_b[group * n_visible + i] = static_cast<float>(sum(dot));
    });
  });
  for (std::int64_t i = 0; i < n_visible; ++i) {
    float g = data.mean_v[i] - model.mean_v[i];
    for (std::int64_t group = 0; centred && group < groups; ++group) g -= to_b[group * n_visible + i];
    op.grad_b[i] = g;
  }
  for (std::int64_t j = 0; j < n_hidden; ++j) {
    float g = dh[j];
    for (std::int64_t k = 0; centred && k < blocks; ++k) g -= to_c[k * padded + j];
    op.grad_c[j] = g;
  }
}

Phase carve_phase(Scratch& scratch, std::int64_t rows, std::int64_t n_visible, std::int64_t n_hidden) {
  Phase p;
  p.means = {{scratch.carve<float>(static_cast<std::size_t>(Panels::float_count(rows, n_hidden))), rows, n_hidden},
             1.0f / static_cast<float>(rows)};
  p.transposed = scratch.carve<std::uint64_t>(static_cast<std::size_t>(64 * word_count(n_visible) * word_count(rows)));
  p.mean_v = scratch.carve<float>(static_cast<std::size_t>(n_visible));
  p.mean_h = scratch.carve<float>(static_cast<std::size_t>(round_up(n_hidden, group_columns)));
  return p;
}

std::size_t phase_bytes(std::int64_t rows, std::int64_t n_visible, std::int64_t n_hidden) {
  return 4 * static_cast<std::size_t>(Panels::float_count(rows, n_hidden) + n_visible +
                                      round_up(n_hidden, group_columns)) +
         8 * static_cast<std::size_t>(64 * word_count(n_visible) * word_count(rows)) + 256;
}

void cd_gradient(const CdGradient& op) {
  const bool persistent = op.chains.given();
  const std::int64_t n = op.v.shape[0], chains = op.chains_out.shape[0];
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  const Blocks data_blocks(n, true), chain_blocks(chains, true);
  Scratch scratch(Machine::bytes(n_visible, n_hidden) + Bits::bytes(data_blocks, n_visible) +
                  Bits::bytes(chain_blocks, n_visible) + Bits::bytes(chain_blocks, n_hidden) +
                  phase_bytes(n, n_visible, n_hidden) + phase_bytes(chains, n_visible, n_hidden));
  const Machine m = pack_machine(op, CdGradient::name, scratch);
  const Bits data_bits = Bits::carve(scratch, data_blocks, n_visible);
  const Bits chain_bits = Bits::carve(scratch, chain_blocks, n_visible);
  const Bits hidden_bits = Bits::carve(scratch, chain_blocks, n_hidden);
  Phase data = carve_phase(scratch, n, n_visible, n_hidden), model = carve_phase(scratch, chains, n_visible, n_hidden);

  const bool binary = pack_all(op.v, data_blocks, data_bits);
  if (!binary && op.v.type == StateType::u8) runtime::reject_states(CdGradient::name, "v", op.v);
  if (persistent && !pack_all(op.chains, chain_blocks, chain_bits)) {
    runtime::reject_states(CdGradient::name, "chains", op.chains);
  }
  const auto* real = static_cast<const float*>(op.v.data);
  Scratch dense(binary ? 0 : 4 * static_cast<std::size_t>(n * n_hidden + lanes));
  float* fields = binary ? nullptr : dense.carve<float>(static_cast<std::size_t>(n * n_hidden + lanes));
  if (!binary) {
    check::finite(CdGradient::name, "v", real, n * n_visible);
    dense_fields(real, n, op.w, false, fields);
  }

  // One group of fields of one data row: its means, and for CD the chain's first hidden states.
  const auto take_data = [&](std::int64_t task, std::int64_t r, std::int64_t first, const float* sums) {
    const std::int64_t row = data_blocks.first(task) + r;
    put_means(data.means, row, first, sums, m.c);
    if (persistent) return;
    std::uint64_t words[2];
    draw_group(make_draw(op.key, philox::hidden_head, static_cast<std::uint64_t>(op.first_step),
                         static_cast<std::uint64_t>(row)),
               first, n_hidden - first,
               [&](int offset) { return with_tail(load(sums + offset) + load(m.c + first + offset)); }, words);
    put_group(hidden_bits.of(task), data_blocks.size(task), r, first, n_hidden, words, nullptr, 0);
  };
  parallel_for(data_blocks.count(), [&](std::int64_t task) {
    const std::int64_t rows = data_blocks.size(task);
    if (!binary) {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t first = 0; first < n_hidden; first += group_columns) {
          take_data(task, r, first, fields + (data_blocks.first(task) + r) * n_hidden + first);
        }
      }
      return;
    }
    Scratch local(4 * static_cast<std::size_t>(rows * group_columns));
    row_sums(m.to_hidden, data_bits.of(task), rows, local.carve<float>(static_cast<std::size_t>(rows * group_columns)),
             [&](std::int64_t r, std::int64_t first, const float* sums) { take_data(task, r, first, sums); });
  });

  parallel_for(chain_blocks.count(), [&](std::int64_t task) {
    const std::int64_t rows = chain_blocks.size(task), first_row = chain_blocks.first(task);
    Scratch local(4 * static_cast<std::size_t>(rows * group_columns));
    float* x = local.carve<float>(static_cast<std::size_t>(rows * group_columns));
    const float one = 1;
    for (std::int64_t i = 0; i < op.k; ++i) {
      const std::int64_t step = op.first_step + i;
      if (i > 0 || persistent) {
        draw_hidden(m, chain_bits.of(task), rows, x, {op.key, philox::hidden_head, step, first_row},
                    hidden_bits.of(task), &one, 0);
      }
      draw_visible(m, hidden_bits.of(task), rows, x, {op.key, philox::visible_head, step, first_row},
                   chain_bits.of(task), &one, 0, {});
    }
    row_sums(m.to_hidden, chain_bits.of(task), rows, x, [&](std::int64_t r, std::int64_t first, const float* sums) {
      put_means(model.means, first_row + r, first, sums, m.c);
    });
    unpack_states(states_of(op.chains_out), first_row, rows, chain_bits.of(task));
  });

  transpose_bits(chain_bits, chain_blocks, n_visible, model.transposed);
  mean_of_bits(model.transposed, n_visible, chains, model.mean_v);
  sum_rows(model.means.panels, model.mean_h);
  sum_rows(data.means.panels, data.mean_h);
  if (binary) {
    transpose_bits(data_bits, data_blocks, n_visible, data.transposed);
    mean_of_bits(data.transposed, n_visible, n, data.mean_v);
  } else {
    mean_of_rows(real, n, n_visible, data.mean_v);
    // The dense product wants the means by rows: unpack them over the fields, which nobody needs any more.
    parallel_for(n, [&](std::int64_t r) {
      for (std::int64_t j = 0; j < n_hidden; ++j) {
        fields[r * n_hidden + j] = data.means.panels.at(j / tile_columns, r)[j % tile_columns];
      }
    });
    gemm(n_visible, n_hidden, n, real, std::int64_t{1}, n_visible, fields, n_hidden, std::int64_t{1}, op.grad_w.data,
         n_hidden, Identity{});
  }
  weight_gradient(op, data, model, !binary);
  if (op.mean_v.given()) std::memcpy(op.mean_v.data, data.mean_v, 4 * static_cast<std::size_t>(n_visible));
  if (op.mean_h.given()) std::memcpy(op.mean_h.data, data.mean_h, 4 * static_cast<std::size_t>(n_hidden));
}

}  // namespace

void fill_rbm(runtime::Table& table) {
  table.rbm.GibbsChain = gibbs_chain;
  table.rbm.HiddenMean = hidden_mean;
  table.rbm.VisibleMean = visible_mean;
  table.rbm.HiddenSample = hidden_sample;
  table.rbm.VisibleSample = visible_sample;
  table.rbm.FreeEnergy = free_energy;
  table.rbm.CdGradient = cd_gradient;
}

}  // namespace gencore::GENCORE_LEVEL
