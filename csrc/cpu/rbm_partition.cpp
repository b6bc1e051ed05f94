// What an RBM's normalisation takes: exact enumeration, annealed importance sampling, and the pseudo-likelihoods that
// need no normalisation. Log-weights and log-likelihoods accumulate in float64.
#include "../runtime/table.h"
#include "layer.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using rbm::Ais;
using rbm::LogPartitionExact;
using rbm::PseudoLogLikelihood;
using rbm::StochasticPseudoLogLikelihood;

// --- enumeration -------------------------------------------------------------------------------------------------------

// log sum exp, one term at a time.
struct LogSumExp {
  double top = -__builtin_inf(), scaled = 0;
  void add(double x) {
    if (x <= top) {
      scaled += __builtin_exp(x - top);
    } else {
      scaled = scaled * __builtin_exp(top - x) + 1;
      top = x;
    }
  }
  void add(const LogSumExp& other) {
    if (other.scaled == 0) return;
    if (other.top > top) {
      scaled *= __builtin_exp(top - other.top);
      top = other.top;
    }
    scaled += other.scaled * __builtin_exp(other.top - top);
  }
  double value() const { return top + __builtin_log(scaled); }
};

// The machine seen from its smaller side: unit k of it adds bias[k] and its row of weights to the fields of the other.
struct Enumeration {
  std::int64_t small, large, padded;
  double* rows;      // (small, large)
  double* bias;      // (small,)
  double* fields;    // (large,): the other side's biases
  std::int64_t low;  // the low units are tabulated
  float* table;      // (2^low, padded): sums of the low rows, rounded once
  double* low_bias;  // (2^low,)
};

// Sum over all states of the low units, with the high units' fields given. Fields are float64 sums rounded once.
void add_low_states(const Enumeration& e, const float* high_fields, double high_bias, LogSumExp& total) {
  for (std::int64_t state = 0; state < std::int64_t{1} << e.low; ++state) {
    const float* low = e.table + state * e.padded;
    double energy = high_bias + e.low_bias[state];
    for (std::int64_t begin = 0; begin < e.large; begin += SoftplusSum::capacity * lanes) {
      const std::int64_t end = min_of(begin + SoftplusSum::capacity * lanes, e.large);
      SoftplusSum softplus;
      std::int64_t i = begin;
      for (; i + lanes <= end; i += lanes) softplus.add(load(high_fields + i) + load(low + i), lanes);
      if (i < end) softplus.add(load(high_fields + i) + load(low + i), end - i);
      energy += softplus.value();
    }
    total.add(energy);
  }
}

void tabulate_low_states(const Enumeration& e) {
  for (std::int64_t state = 0; state < std::int64_t{1} << e.low; ++state) {
    e.low_bias[state] = 0;
    for (std::int64_t k = 0; k < e.low; ++k) {
      if ((state >> k) & 1) e.low_bias[state] += e.bias[k];
    }
    for (std::int64_t i = 0; i < e.padded; ++i) {
      double sum = 0;
      for (std::int64_t k = 0; k < e.low && i < e.large; ++k) {
        if ((state >> k) & 1) sum += e.rows[k * e.large + i];
      }
      e.table[state * e.padded + i] = static_cast<float>(sum);
    }
  }
}

// High states first .. first + count - 1 in Gray-code order: one row is added or removed a step, in float64.
LogSumExp sum_high_states(const Enumeration& e, std::int64_t first, std::int64_t count) {
  Scratch scratch(8 * static_cast<std::size_t>(e.large) + 4 * static_cast<std::size_t>(e.padded) + 128);
  double* fields = scratch.carve<double>(static_cast<std::size_t>(e.large));
  float* rounded = scratch.carve<float>(static_cast<std::size_t>(e.padded));
  const auto flip = [&](std::int64_t k, double sign, double& bias) {
    bias += sign * e.bias[e.low + k];
    const double* row = e.rows + (e.low + k) * e.large;
    for (std::int64_t i = 0; i < e.large; ++i) fields[i] += sign * row[i];
  };
  double bias = 0;
  std::memcpy(fields, e.fields, 8 * static_cast<std::size_t>(e.large));
  for (std::int64_t gray = first ^ (first >> 1), k = 0; gray != 0; gray >>= 1, ++k) {
    if (gray & 1) flip(k, 1, bias);
  }
  LogSumExp total;
  for (std::int64_t index = first; index < first + count; ++index) {
    if (index > first) {
      const std::int64_t k = __builtin_ctzll(static_cast<unsigned long long>(index));
      flip(k, ((index ^ (index >> 1)) >> k) & 1 ? 1 : -1, bias);
    }
    for (std::int64_t i = 0; i < e.padded; ++i) rounded[i] = i < e.large ? static_cast<float>(fields[i]) : 0;
    add_low_states(e, rounded, bias, total);
  }
  return total;
}

void log_partition_exact(const LogPartitionExact& op) {
  check::finite(LogPartitionExact::name, "w", op.w.data, op.w.size());
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  const bool over_hidden = n_hidden <= n_visible;
  Enumeration e{};
  e.small = over_hidden ? n_hidden : n_visible;
  e.large = over_hidden ? n_visible : n_hidden;
  e.padded = round_up(e.large, lanes);
  e.low = min_of(e.small, 6);
  const std::int64_t high_states = std::int64_t{1} << (e.small - e.low), chunk = min_of(high_states, 256);
  const std::int64_t chunks = high_states / chunk;
  const auto S = static_cast<std::size_t>(e.small), L = static_cast<std::size_t>(e.large),
             P = static_cast<std::size_t>(e.padded);
  Scratch scratch(8 * (S * L + S + L + 64) + 4 * 64 * P + sizeof(LogSumExp) * static_cast<std::size_t>(chunks) + 512);
  e.rows = scratch.carve<double>(S * L);
  e.bias = scratch.carve<double>(S);
  e.fields = scratch.carve<double>(L);
  e.low_bias = scratch.carve<double>(64);
  e.table = scratch.carve<float>(64 * P);
  auto* sums = scratch.carve<LogSumExp>(static_cast<std::size_t>(chunks));
  for (std::int64_t k = 0; k < e.small; ++k) {
    e.bias[k] = (over_hidden ? op.c : op.b)[k];
    for (std::int64_t i = 0; i < e.large; ++i) e.rows[k * e.large + i] = over_hidden ? op.w.row(i)[k] : op.w.row(k)[i];
  }
  for (std::int64_t i = 0; i < e.large; ++i) e.fields[i] = (over_hidden ? op.b : op.c)[i];
  tabulate_low_states(e);
  parallel_for(chunks, [&](std::int64_t task) { sums[task] = sum_high_states(e, task * chunk, chunk); });
  LogSumExp total;
  for (std::int64_t task = 0; task < chunks; ++task) total.add(sums[task]);
  op.out[0] = total.value();
}

// --- annealed importance sampling --------------------------------------------------------------------------------------

// v ~ prod_i logistic(b0_i).
void draw_base(const float* base, std::int64_t units, std::int64_t rows, const Coordinates& at, std::uint64_t* bits) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto draw = make_draw(at.key, at.domain, 0, static_cast<std::uint64_t>(at.first_row + r));
    for (std::int64_t first = 0; first < units; first += group_columns) {
      std::uint64_t words[2];
      draw_group(draw, first, units - first, [&](int offset) { return with_tail(load(base + first + offset)); }, words);
      put_group(bits, rows, r, first, units, words, nullptr, 0);
    }
  }
}

// sum_i (b_i - b0_i) v_i over the units that are on.
double bias_difference(const std::uint64_t* bits, std::int64_t words, std::int64_t stride, const double* difference) {
  double sum = 0;
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::uint64_t word = bits[w * stride]; word != 0; word &= word - 1)
      sum += difference[64 * w + __builtin_ctzll(word)];
  }
  return sum;
}

// From v: adds log f_next(v) / f_now(v) to each run's log-weight and draws h at `next`, from the same sums.
void weigh_and_draw_hidden(const Machine& m, const std::uint64_t* visible, std::int64_t rows, float* x, double now,
                           double next, const Coordinates& at, std::uint64_t* hidden, double* log_weights) {
  const F beta0 = splat(static_cast<float>(now)), beta1 = splat(static_cast<float>(next));
  row_sums(m.to_hidden, visible, rows, x, [&](std::int64_t r, std::int64_t first, const float* sums) {
    F before = splat(1.0f), after = splat(1.0f), positive{};
    const std::int64_t count = m.n_hidden - first;
    std::uint64_t words[2];
    const auto draw = make_draw(at.key, at.domain, static_cast<std::uint64_t>(at.step),
                                static_cast<std::uint64_t>(at.first_row + r));
    draw_group(draw, first, count, [&](int offset) {
      const F field = load(sums + offset) + load(m.c + first + offset);
      const Fields drawn_from = with_tail(field * beta1);
      F e0 = exp_minus_abs(field * beta0), e1 = drawn_from.e, p = max(field, splat(0.0f));
      if (count - offset < lanes) {
        const Mask counts = less(to_float((I)iota()), splat(static_cast<float>(count - offset)));
        e0 = select(counts, e0, splat(0.0f));
        e1 = select(counts, e1, splat(0.0f));
        p = select(counts, p, splat(0.0f));
      }
      before *= 1.0f + e0;
      after *= 1.0f + e1;
      positive += p;
      return drawn_from;
    }, words);
    put_group(hidden, rows, r, first, m.n_hidden, words, nullptr, 0);
    log_weights[r] += (next - now) * sum(positive) + sum(log(after / before));
  });
}

void ais(const Ais& op) {
  const std::int64_t runs = op.log_weights.shape[0], temperatures = op.betas.shape[0];
  const Blocks blocks(runs, false);
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1], padded = round_up(n_visible, group_columns);
  Scratch scratch(Machine::bytes(n_visible, n_hidden) + Bits::bytes(blocks, n_visible) +
                  12 * static_cast<std::size_t>(padded) + 128);
  const Machine m = pack_machine(op, Ais::name, scratch);
  const float* base = padded_copy(scratch, op.base_bias.data, n_visible);
  double* difference = scratch.carve<double>(static_cast<std::size_t>(padded));
  for (std::int64_t i = 0; i < n_visible; ++i)
    difference[i] = static_cast<double>(m.b[i]) - static_cast<double>(base[i]);
  const Bits visible = Bits::carve(scratch, blocks, n_visible);
  if (op.start.given() && !pack_all(op.start, blocks, visible)) {
    runtime::reject_states(Ais::name, "start", op.start);
  }
  parallel_for(blocks.count(), [&](std::int64_t task) {
    const std::int64_t rows = blocks.size(task), first_row = op.first_row + blocks.first(task);
    const auto hidden_words = static_cast<std::size_t>(rows * word_count(n_hidden));
    Scratch local(8 * hidden_words + 4 * static_cast<std::size_t>(rows * group_columns) +
                  8 * static_cast<std::size_t>(rows) + 192);
    auto* hidden = local.carve<std::uint64_t>(hidden_words);
    float* x = local.carve<float>(static_cast<std::size_t>(rows * group_columns));
    double* log_weights = local.carve<double>(static_cast<std::size_t>(rows));
    std::uint64_t* v = visible.of(task);
    if (!op.start.given()) draw_base(base, n_visible, rows, {op.key, philox::ais_start, 0, first_row}, v);
    for (std::int64_t r = 0; r < rows; ++r) log_weights[r] = 0;
    for (std::int64_t k = 1; k < temperatures; ++k) {
      const double now = op.betas[k - 1], next = op.betas[k];
      for (std::int64_t r = 0; r < rows; ++r) {
        log_weights[r] += (next - now) * bias_difference(v + r, word_count(n_visible), rows, difference);
      }
      weigh_and_draw_hidden(m, v, rows, x, now, next, {op.key, philox::hidden_head, k, first_row}, hidden, log_weights);
      const F beta = splat(static_cast<float>(next)), rest = splat(static_cast<float>(1 - next));
      draw_side(m.to_visible, hidden, rows, x, {op.key, philox::visible_head, k, first_row}, v,
                [&](std::int64_t, std::int64_t first, const float* sums, int offset) {
        const F field = load(sums + offset) + load(m.b + first + offset);
        return with_tail(fma(field, beta, load(base + first + offset) * rest));
      });
    }
    for (std::int64_t r = 0; r < rows; ++r) op.log_weights[blocks.first(task) + r] = log_weights[r];
    unpack_states(states_of(op.v_out), blocks.first(task), rows, v);
  });
}

// --- pseudo-likelihood -------------------------------------------------------------------------------------------------

// sum_j softplus(x_j + sign w_j); without w, of x alone.
double softplus_sum(const float* x, const float* w, float sign, std::int64_t n) {
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += SoftplusSum::capacity * lanes) {
    const std::int64_t end = min_of(begin + SoftplusSum::capacity * lanes, n);
    SoftplusSum softplus;
    for (std::int64_t j = begin; j < end; j += lanes) {
      const std::int64_t valid = min_of(lanes, end - j);
      F field = load(x + j);
      if (w != nullptr)
        field = fma(valid == lanes ? load(w + j) : load_first(w + j, static_cast<int>(valid)), splat(sign), field);
      softplus.add(field, valid);
    }
    total += softplus.value();
  }
  return total;
}

// F(v) - F(v with unit i flipped), from the fields x of v and their softplus sum; log p(v_i | rest) is -softplus of it.
double gain_of_flip(const rbm::Parameters& op, const float* x, double base, std::int64_t i, bool on) {
  const float sign = on ? -1.0f : 1.0f;
  return sign * static_cast<double>(op.b[i]) + softplus_sum(x, op.w.row(i), sign, op.w.shape[1]) - base;
}

// Calls body(row, fields of the row, bits of the block, row in the block, rows of the block) for blocks of a few rows, so
// that the weights are read once a block.
template <class Op, class Body>
void for_each_block_of_fields(const Op& op, const Body& body) {
  constexpr std::int64_t block = 16;
  const std::int64_t n = op.v.shape[0], n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  const std::int64_t padded = round_up(n_hidden, group_columns), words = word_count(n_visible);
  Scratch scratch(4 * static_cast<std::size_t>(Panels::float_count(n_visible, n_hidden) + padded) +
                  8 * static_cast<std::size_t>(round_up(n, block) * words) + 192);
  const Panels panels = pack_panels(Op::name, scratch, op.w, false);
  const float* c = padded_copy(scratch, op.c.data, n_hidden);
  auto* bits = scratch.carve<std::uint64_t>(static_cast<std::size_t>(round_up(n, block) * words));
  Flag bad;
  parallel_for(ceil_div(n, block), [&](std::int64_t task) {
    if (!pack_states(op.v, task * block, min_of(block, n - task * block), bits + task * block * words)) bad.raise();
  });
  if (bad.raised) runtime::reject_states(Op::name, "v", op.v);
  parallel_for(ceil_div(n, block), [&](std::int64_t task) {
    const std::int64_t rows = min_of(block, n - task * block);
    Scratch local(4 * static_cast<std::size_t>(rows * (group_columns + padded)) + 128);
    float* x = local.carve<float>(static_cast<std::size_t>(rows * group_columns));
    float* fields = local.carve<float>(static_cast<std::size_t>(rows * padded));
    const std::uint64_t* block_bits = bits + task * block * words;
    row_sums(panels, block_bits, rows, x, [&](std::int64_t r, std::int64_t first, const float* sums) {
      for (std::int64_t j = first; j < min_of(first + group_columns, n_hidden); j += lanes) {
        store(fields + r * padded + j, load(sums + j - first) + load(c + j));
      }
    });
    body(task * block, rows, fields, padded, block_bits);
  });
}

GENCORE_INLINE bool unit_is_on(const std::uint64_t* bits, std::int64_t rows, std::int64_t r, std::int64_t i) {
  return ((bits[i / 64 * rows + r] >> (i % 64)) & 1) != 0;
}

// e^w and e^-w of one unit's weights, 1 beyond their end; returns the largest |w|.
float exponentiate(const float* w, std::int64_t n, float* up, float* down) {
  F largest{};
  for (std::int64_t j = 0; j < n; j += lanes) {
    const F x = load_first(w + j, static_cast<int>(min_of(lanes, n - j)));
    largest = max(largest, abs(x));
    store(up + j, exp(x));
    store(down + j, exp(-x));
  }
  float result = 0;
  for (int l = 0; l < lanes; ++l) result = largest[l] > result ? largest[l] : result;
  return result;
}

// sum_j ln(q_j + p_j e_j), one logarithm for `stretch` vectors of factors.
double log_of_product(const float* p, const float* q, const float* e, std::int64_t n, std::int64_t stretch) {
  const auto factor = [&](std::int64_t j) { return fma(load(p + j), load(e + j), load(q + j)); };
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += stretch * lanes) {
    const std::int64_t end = min_of(begin + stretch * lanes, n);
    F even = splat(1.0f), odd = splat(1.0f);
    std::int64_t j = begin;
    for (; j + lanes < end; j += 2 * lanes) {
      even *= factor(j);
      odd *= factor(j + lanes);
    }
    if (j < end) even *= factor(j);
    total += sum(log(even * odd));
  }
  return total;
}

// With p = logistic(x) and q = 1 - p of the hidden fields, flipping unit i changes the softplus sum by
// sum_j ln(q_j + p_j e^(+-w_ij)): neither exponential nor cancellation in the inner loop. All factors lie between e^-|w| and
// e^|w|, which says how many of them a product can hold.
void pseudo_log_likelihood(const PseudoLogLikelihood& op) {
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  for_each_block_of_fields(op, [&](std::int64_t first, std::int64_t rows, const float* fields, std::int64_t stride,
                                   const std::uint64_t* bits) {
    const std::int64_t gain_stride = round_up(n_visible, lanes);
    Scratch scratch(4 * static_cast<std::size_t>(2 * rows * stride + 2 * stride + rows * gain_stride) + 320);
    float* p = scratch.carve<float>(static_cast<std::size_t>(rows * stride));
    float* q = scratch.carve<float>(static_cast<std::size_t>(rows * stride));
    float* up = scratch.carve<float>(static_cast<std::size_t>(stride));
    float* down = scratch.carve<float>(static_cast<std::size_t>(stride));
    float* gains = scratch.carve<float>(static_cast<std::size_t>(rows * gain_stride));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t j = r * stride; j < r * stride + n_hidden; j += lanes) {
        const F x = load(fields + j);
        store(p + j, logistic(x));
        store(q + j, logistic(-x));
      }
    }
    for (std::int64_t i = 0; i < n_visible; ++i) {
      const float largest = exponentiate(op.w.row(i), n_hidden, up, down);
      const auto stretch = static_cast<std::int64_t>(80.0f / (largest > 0.7f ? largest : 0.7f));
      for (std::int64_t r = 0; r < rows; ++r) {
        const bool on = unit_is_on(bits, rows, r, i);
        const float* x = fields + r * stride;
        gains[r * gain_stride + i] = static_cast<float>(
            stretch == 0 ? gain_of_flip(op, x, softplus_sum(x, nullptr, 0, n_hidden), i, on)
                         : (on ? -1.0 : 1.0) * static_cast<double>(op.b[i]) +
                               log_of_product(p + r * stride, q + r * stride, on ? down : up, n_hidden, stretch));
      }
    }
    for (std::int64_t r = 0; r < rows; ++r)
      op.out[first + r] = -softplus_sum(gains + r * gain_stride, nullptr, 0, n_visible);
  });
}

void stochastic_pseudo_log_likelihood(const StochasticPseudoLogLikelihood& op) {
  const auto n_visible = static_cast<std::uint64_t>(op.w.shape[0]);
  for_each_block_of_fields(op, [&](std::int64_t first, std::int64_t rows, const float* fields, std::int64_t stride,
                                   const std::uint64_t* bits) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto at = philox::stream(philox::pseudo_likelihood, static_cast<std::uint64_t>(op.step),
                                     static_cast<std::uint64_t>(op.first_row + first + r));
      const auto i = static_cast<std::int64_t>((philox::word_at(op.key, at, 0) * n_visible) >> 32);
      const float* x = fields + r * stride;
      const double base = softplus_sum(x, nullptr, 0, op.w.shape[1]);
      const double gain = gain_of_flip(op, x, base, i, unit_is_on(bits, rows, r, i));
      const double softplus = gain > 0 ? gain + __builtin_log1p(__builtin_exp(-gain))
                                       : __builtin_log1p(__builtin_exp(gain));
      op.out[first + r] = -static_cast<double>(n_visible) * softplus;
    }
  });
}

}  // namespace

void fill_rbm_partition(runtime::Table& table) {
  table.rbm.LogPartitionExact = log_partition_exact;
  table.rbm.Ais = ais;
  table.rbm.PseudoLogLikelihood = pseudo_log_likelihood;
  table.rbm.StochasticPseudoLogLikelihood = stochastic_pseudo_log_likelihood;
}

}  // namespace gencore::GENCORE_LEVEL
