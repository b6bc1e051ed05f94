// NADE's log-likelihood and its gradients.
//
// Forward, rows are independent: a task is a block of eight. Backward, once the slopes g of the logits are known, hidden
// units are independent: a task is a stretch of them with all rows, so that sums over rows have one order and nothing is
// added up from tasks. A row's a and h are computed again as forward; a run, from one of its ones to the next, has one h:
//   grad_v_d += g_d h,   da of the run = h (1 - h) sum_d g_d v_d,   grad_w_d += sum of da over the runs after d.
//
// The limit of the gradient, logits given: twice D H multiply-adds a row (grad_v, sums of a run) and K H logistic
// functions, of 100 rows of 784 x 500 with 110 ones each 0.61 and 0.45 ms on 16 lanes at 4.3 GHz. Measured 2.4 ms: 0.7
// multiply-adds, 0.8 logistic functions with what else a run costs, 0.3 sums over runs, 0.2 copies in and out. (Hidden
// units of all runs at once, in a pass of their own, take 0.5 ms, and as much again to be read: no gain.)
#include "nade.h"

#include "../runtime/table.h"
#include "bernoulli_cost.h"

namespace gencore::GENCORE_LEVEL {

namespace {

using autoregressive::NadeLogProb;
using autoregressive::NadeLogProbVjp;

// Logits of a block; row r of `rows` starts at logits + r * dims. sums: room for 8 dims floats.
void block_logits(const Nade& model, const std::uint8_t* ones, std::int64_t rows, NadeHidden& hidden, float* sums,
                  float* logits) {
  hidden.reset(model.c);
  for (std::int64_t i = 0; i < model.dims; ++i) {
    const std::int64_t d = model.at(i);
    hidden.dot(model.v + d * model.hidden).store_to(sums + nade_rows * d);
    if (i + 1 == model.dims) break;
    for (unsigned left = ones[d]; left != 0; left &= left - 1) {
      hidden.add(__builtin_ctz(left), model.w + d * model.hidden);
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t d = 0; d < model.dims; ++d) logits[r * model.dims + d] = model.b[d] + sums[nade_rows * d + r];
  }
}

// --- log-probabilities -------------------------------------------------------------------------------------------------

template <class T>
float log_prob_of(const float* logits, const T* x, std::int64_t dims) {
  bool legal = true;
  return static_cast<float>(-negative_log_prob(logits, x, dims, legal));
}

float log_prob_of(const float* logits, const ConstStates& x, std::int64_t row) {
  const std::int64_t dims = x.shape[1], skip = row * dims;
  if (x.type == StateType::u8) return log_prob_of(logits, static_cast<const std::uint8_t*>(x.data) + skip, dims);
  return log_prob_of(logits, static_cast<const float*>(x.data) + skip, dims);
}

void nade_log_prob(const NadeLogProb& op) {
  runtime::check_permutation(op.name, "order", op.order);
  const Nade model(op);
  const std::int64_t n = op.x.shape[0];
  Flag wrong;
  parallel_for(nade_blocks(n), [&](std::int64_t block) {
    const std::int64_t first = block * nade_rows, rows = min_of(nade_rows, n - first);
    const auto dims = static_cast<std::size_t>(model.dims);
    Scratch scratch(NadeHidden::bytes(model.hidden) + dims + 8 * nade_rows * dims + 192);
    NadeHidden hidden(scratch, model.hidden);
    auto* ones = scratch.carve<std::uint8_t>(dims);
    auto* sums = scratch.carve<float>(nade_rows * dims);
    float* logits = op.logits.given() ? op.logits.row(first) : scratch.carve<float>(nade_rows * dims);
    if (!nade_pack(op.x, first, rows, ones)) return wrong.raise();
    block_logits(model, ones, rows, hidden, sums, logits);
    for (std::int64_t r = 0; r < rows; ++r) {
      op.out[first + r] = log_prob_of(logits + r * model.dims, op.x, first + r);
    }
  });
  if (wrong.raised != 0) runtime::reject_states(op.name, "x", op.x);
}

// --- gradients ---------------------------------------------------------------------------------------------------------

// Of each block of rows: its ones, ones[d] bit r, and the slopes of its logits, slopes[8 d + r], 0 for rows that are not
// there.
struct Blocks {
  std::int64_t rows, dims;
  std::uint8_t* ones;
  float* slopes;

  GENCORE_INLINE std::uint8_t* ones_of(std::int64_t block) const { return ones + block * dims; }
  GENCORE_INLINE float* slopes_of(std::int64_t block) const { return slopes + block * dims * nade_rows; }
};

// slopes[8 d] = grad (x - logistic(logit)) of one row, whose ones are bit r of ones[d].
void row_slopes(const float* logits, const std::uint8_t* ones, int r, std::int64_t dims, float grad, float* slopes) {
  for_each_vector(0, dims, [&](std::int64_t d, int valid) {
    float x[lanes] = {}, found[lanes];
    for (int i = 0; i < valid; ++i) x[i] = static_cast<float>((ones[d + i] >> r) & 1);
    store(found, grad * slope_of(load_or(logits + d, valid, 0.0f), load(x)));
    for (int i = 0; i < valid; ++i) slopes[nade_rows * (d + i)] = found[i];
  });
}

void block_slopes(const NadeLogProbVjp& op, const Nade& model, const Blocks& blocks, std::int64_t block, Flag& wrong) {
  const std::int64_t first = block * nade_rows, rows = min_of(nade_rows, blocks.rows - first);
  const auto dims = static_cast<std::size_t>(model.dims);
  std::uint8_t* ones = blocks.ones_of(block);
  float* slopes = blocks.slopes_of(block);
  if (!nade_pack(op.x, first, rows, ones)) return wrong.raise();
  const bool given = op.logits.given();
  Scratch scratch(given ? 0 : NadeHidden::bytes(model.hidden) + 8 * nade_rows * dims + 128);
  const float* logits = given ? op.logits.row(first) : nullptr;
  if (!given) {
    NadeHidden hidden(scratch, model.hidden);
    auto* sums = scratch.carve<float>(nade_rows * dims);
    auto* computed = scratch.carve<float>(nade_rows * dims);
    block_logits(model, ones, rows, hidden, sums, computed);
    logits = computed;
  }
  for (int r = 0; r < rows; ++r)
    row_slopes(logits + r * model.dims, ones, r, model.dims, op.grad[first + r], slopes + r);
  for (std::int64_t r = rows; r < nade_rows; ++r)
    for (std::int64_t d = 0; d < model.dims; ++d) slopes[nade_rows * d + r] = 0;
}

void bias_gradient(const Blocks& blocks, float* grad_b) {
  for (std::int64_t d = 0; d < blocks.dims; ++d) {
    double sums[nade_rows] = {}, total = 0;
    for (std::int64_t block = 0; block < nade_blocks(blocks.rows); ++block) {
      const float* slopes = blocks.slopes_of(block) + nade_rows * d;
      for (int r = 0; r < nade_rows; ++r) sums[r] += static_cast<double>(slopes[r]);
    }
    for (const double sum : sums) total += sum;
    grad_b[d] = static_cast<float>(total);
  }
}

constexpr int stretch_vectors = 4;
constexpr std::int64_t stretch = stretch_vectors * lanes;  // hidden units of a task

// A few vectors of one row.
struct Part {
  F v[stretch_vectors];

  GENCORE_INLINE static Part at(const float* p) {
    Part x;
    GENCORE_UNROLL
    for (int i = 0; i < stretch_vectors; ++i) x.v[i] = load(p + i * lanes);
    return x;
  }
  GENCORE_INLINE void to(float* p) const {
    GENCORE_UNROLL
    for (int i = 0; i < stretch_vectors; ++i) store(p + i * lanes, v[i]);
  }
  GENCORE_INLINE void add(const Part& other) {
    GENCORE_UNROLL
    for (int i = 0; i < stretch_vectors; ++i) v[i] += other.v[i];
  }
};

// The first `count` columns of matrix rows, padded with zeros, and back.
void copy_in(const float* from, std::int64_t rows, std::int64_t columns, std::int64_t count, float* to) {
  for (std::int64_t d = 0; d < rows; ++d, from += columns, to += stretch) {
    if (count == stretch) {
      Part::at(from).to(to);
      continue;
    }
    for (std::int64_t j = 0; j < stretch; ++j) to[j] = j < count ? from[j] : 0.0f;
  }
}
void copy_out(const float* from, std::int64_t rows, std::int64_t columns, std::int64_t count, float* to) {
  for (std::int64_t d = 0; d < rows; ++d, from += stretch, to += columns) {
    if (count == stretch) {
      Part::at(from).to(to);
      continue;
    }
    for (std::int64_t j = 0; j < count; ++j) to[j] = from[j];
  }
}

// All rows' share in the gradients of one stretch of hidden units.
class Stretch {
 public:
  static std::size_t bytes(std::int64_t dims, std::int64_t runs) {
    return 4 * static_cast<std::size_t>(stretch * (4 * dims + 3 * nade_rows + 2 + runs)) + 64 * 10;
  }

  Stretch(Scratch& scratch, const Nade& model, std::int64_t first, std::int64_t runs)
      : model_(model), first_(first), count_(min_of(stretch, model.hidden - first)) {
    const auto carve = [&](std::int64_t rows) {
      return scratch.carve<float>(static_cast<std::size_t>(rows * stretch));
    };
    w_ = carve(model.dims);
    v_ = carve(model.dims);
    grad_w_ = carve(model.dims);
    grad_v_ = carve(model.dims);
    c_ = carve(1);
    grad_c_ = carve(1);
    a_ = carve(nade_rows);
    h_ = carve(nade_rows);
    dh_ = carve(nade_rows);
    runs_ = carve(runs);
    copy_in(model.w + first, model.dims, model.hidden, count_, w_);
    copy_in(model.v + first, model.dims, model.hidden, count_, v_);
    copy_in(model.c + first, 1, model.hidden, count_, c_);
    for (std::int64_t i = 0; i < stretch * model.dims; ++i) grad_w_[i] = grad_v_[i] = 0;
    for (std::int64_t i = 0; i < stretch; ++i) grad_c_[i] = 0;
  }

  void add_block(const std::uint8_t* ones, const float* slopes, std::int64_t rows) {
    start();
    for (std::int64_t i = 0; i < model_.dims; ++i) {
      std::int64_t d = model_.at(i);
      if (ones[d] == 0 && i + 1 < model_.dims) {  // no h changes: two dimensions share the reads of the rows
        const std::int64_t pair[2] = {d, model_.at(++i)};
        add_dimensions(pair, slopes);
        d = pair[1];
      } else {
        const std::int64_t one[1] = {d};
        add_dimensions(one, slopes);
      }
      if (i + 1 == model_.dims) break;
      for (unsigned left = ones[d]; left != 0; left &= left - 1) finish_run(__builtin_ctz(left), d);
    }
    add_runs(ones, rows);
  }

  void write(const NadeLogProbVjp& op) const {
    copy_out(grad_w_, model_.dims, model_.hidden, count_, op.grad_w.data + first_);
    copy_out(grad_v_, model_.dims, model_.hidden, count_, op.grad_v.data + first_);
    copy_out(grad_c_, 1, model_.hidden, count_, op.grad_c.data + first_);
  }

 private:
  GENCORE_INLINE void start() {
    const Part a = Part::at(c_);
    Part h = a;
    logistic_from_87_each(h.v);
    for (int r = 0; r < nade_rows; ++r) {
      a.to(a_ + r * stretch);
      h.to(h_ + r * stretch);
      Part{}.to(dh_ + r * stretch);
    }
    top_ = 0;
  }

  // grad_v_d += g h and dh += g v_d in every row.
  template <int N>
  GENCORE_INLINE void add_dimensions(const std::int64_t (&d)[N], const float* slopes) {
    Part v[N], sum[N];
    GENCORE_UNROLL
    for (int k = 0; k < N; ++k) {
      v[k] = Part::at(v_ + d[k] * stretch);
      sum[k] = Part::at(grad_v_ + d[k] * stretch);
    }
    const float* h = h_;  // in registers: a store of a vector could change whatever is in memory
    float* dh = dh_;
    GENCORE_UNROLL
    for (int r = 0; r < nade_rows; ++r) {
      F g[N];
      GENCORE_UNROLL
      for (int k = 0; k < N; ++k) g[k] = splat(slopes[nade_rows * d[k] + r]);
      GENCORE_UNROLL
      for (int i = 0; i < stretch_vectors; ++i) {
        const std::int64_t at = r * stretch + i * lanes;
        const F hidden = load(h + at);
        F by_hidden = load(dh + at);
        GENCORE_UNROLL
        for (int k = 0; k < N; ++k) {
          sum[k].v[i] = fma(g[k], hidden, sum[k].v[i]);
          by_hidden = fma(g[k], v[k].v[i], by_hidden);
        }
        store(dh + at, by_hidden);
      }
    }
    GENCORE_UNROLL
    for (int k = 0; k < N; ++k) sum[k].to(grad_v_ + d[k] * stretch);
  }

  // da of the run that ends.
  GENCORE_INLINE Part run_gradient(int r) const {
    Part da = Part::at(dh_ + r * stretch);
    const Part h = Part::at(h_ + r * stretch);
    GENCORE_UNROLL
    for (int i = 0; i < stretch_vectors; ++i) da.v[i] *= h.v[i] * (1.0f - h.v[i]);
    return da;
  }

  GENCORE_INLINE void finish_run(int r, std::int64_t d) {
    run_gradient(r).to(runs_ + stretch * top_++);
    Part x = Part::at(a_ + r * stretch);
    x.add(Part::at(w_ + d * stretch));
    x.to(a_ + r * stretch);
    logistic_from_87_each(x.v);
    x.to(h_ + r * stretch);
    Part{}.to(dh_ + r * stretch);
  }

  // From the last run to the first: the sum of da over the runs after a one is its gradient of w.
  GENCORE_INLINE void add_runs(const std::uint8_t* ones, std::int64_t rows) {
    float* later = dh_;
    for (int r = 0; r < nade_rows; ++r) run_gradient(r).to(later + r * stretch);
    for (std::int64_t i = model_.dims - 2; i >= 0; --i) {
      const std::int64_t d = model_.at(i);
      if (ones[d] == 0) continue;
      Part sum = Part::at(grad_w_ + d * stretch);
      for (unsigned left = ones[d]; left != 0;) {  // as they were pushed, the last first
        const int r = 31 - __builtin_clz(left);
        left ^= 1u << r;
        Part after = Part::at(later + r * stretch);
        sum.add(after);
        after.add(Part::at(runs_ + stretch * --top_));
        after.to(later + r * stretch);
      }
      sum.to(grad_w_ + d * stretch);
    }
    Part sum = Part::at(grad_c_);
    for (std::int64_t r = 0; r < rows; ++r) sum.add(Part::at(later + r * stretch));
    sum.to(grad_c_);
  }

  const Nade& model_;
  std::int64_t first_, count_, top_ = 0;
  float *w_, *v_, *grad_w_, *grad_v_, *c_, *grad_c_;
  float *a_, *h_, *dh_;  // of each row
  float* runs_;          // da of the runs that are over, in the order in which they end
};

// The most runs that end before the last dimension in any block.
std::int64_t most_runs(const Blocks& blocks) {
  std::int64_t most = 0;
  for (std::int64_t block = 0; block < nade_blocks(blocks.rows); ++block) {
    std::int64_t runs = 0;
    for (std::int64_t d = 0; d < blocks.dims; ++d) runs += __builtin_popcount(blocks.ones_of(block)[d]);
    most = max_of(most, runs);
  }
  return most;
}

void nade_log_prob_vjp(const NadeLogProbVjp& op) {
  runtime::check_permutation(op.name, "order", op.order);
  const Nade model(op);
  const std::int64_t n = op.x.shape[0], count = nade_blocks(n);
  const auto units = static_cast<std::size_t>(count * model.dims);
  Scratch scratch(units + 4 * nade_rows * units + 128);
  Blocks blocks{n, model.dims, scratch.carve<std::uint8_t>(units), scratch.carve<float>(nade_rows * units)};
  Flag wrong;
  parallel_for(count, [&](std::int64_t block) { block_slopes(op, model, blocks, block, wrong); });
  if (wrong.raised != 0) runtime::reject_states(op.name, "x", op.x);
  bias_gradient(blocks, op.grad_b.data);
  const std::int64_t runs = most_runs(blocks);
  parallel_for(ceil_div(model.hidden, stretch), [&](std::int64_t task) {
    Scratch local(Stretch::bytes(model.dims, runs));
    Stretch part(local, model, task * stretch, runs);
    for (std::int64_t block = 0; block < count; ++block) {
      part.add_block(blocks.ones_of(block), blocks.slopes_of(block), min_of(nade_rows, n - block * nade_rows));
    }
    part.write(op);
  });
}

}  // namespace

void fill_nade(runtime::Table& table) {
  table.autoregressive.NadeLogProb = nade_log_prob;
  table.autoregressive.NadeLogProbVjp = nade_log_prob_vjp;
}

}  // namespace gencore::GENCORE_LEVEL
