// Draws at a temperature: Gumbel-softmax and relaxed Bernoulli, and their gradients.
//
// The limit, of a million Gumbel-softmax elements forward and backward on one core: 12 MB read and 8 written, 0.2 ms at the
// 115 GB/s of the third-level cache. Arithmetic, each measured alone: 27 ns for 64 elements' noise (Philox 8, eight
// logarithms), 0.4 ms; rows of ten ask for two reductions over lanes, an exponential and a reciprocal, 4 ns each,
// another 0.4. Measured: 1.1 ms forward, 0.2 backward. A masked lane must not hold what underflows: a product that is
// subnormal costs some 50 cycles, and was half the time of rows of ten.
#include "../runtime/table.h"
#include "elements.h"
#include "gencore/sample_reparam.h"
#include "noise.h"

namespace gencore::GENCORE_LEVEL {
namespace {

// 1 / tau, finite for subnormal tau too: it multiplies 0 and what is far from it.
float inverse(float tau) {
  const float most = 3.40282347e38f, inv = 1.0f / tau;
  return inv < most ? inv : most;
}

// --- Gumbel-softmax --------------------------------------------------------------------------------------------------

// logits + G for `count` consecutive elements.
GENCORE_INLINE void perturb(NoiseRun<GumbelNoise>& noise, std::int64_t element, const float* logits, std::int64_t count,
                            float* x) {
  const float* g = noise.at(element, count);
  for_each_vector(count, [&](std::int64_t i, auto at) { store(x + i, at.load(logits + i) + load(g + i)); });
}

// One-hot of the first lane where v is top; NaN where the soft draw is.
GENCORE_INLINE F one_hot(F v, F top, F soft) {
  const int best = __builtin_ctz(bits(less_equal(top, v)) | 1u << lanes);
  const F distance = to_float((I)iota() - best);
  return select(less_equal(splat(0.0f), soft), select(less_equal(distance * distance, splat(0.0f)), splat(1.0f), F{}),
                soft);
}

// Rows that fit into one vector, `at_side` of them at a time, from memory that may be read and written some rows and a
// vector beyond their end.
GENCORE_INLINE void softmax_short(const float* x, std::int64_t rows, std::int64_t n, float inv_tau, bool hard,
                                  float* y) {
  const F infinity = splat(__builtin_inff());
  const Mask inside = less(to_float((I)iota()), splat(static_cast<float>(n)));
  for (std::int64_t first = 0; first < rows; first += at_side) {
    F v[at_side], top[at_side], e[at_side], total[at_side];
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) top[i] = v[i] = select(inside, load(x + (first + i) * n), -infinity);
    reduce_lanes(top, [](F a, F b) { return max(a, b); });
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) e[i] = (v[i] - top[i]) * inv_tau;
    exp_minus_abs_each(e);
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) total[i] = e[i];
    reduce_lanes(total, [](F a, F b) { return a + b; });
    GENCORE_UNROLL
    for (int i = 0; i < at_side; ++i) {
      F out = e[i] * splat(1.0f / total[i][0]);
      if (hard) out = one_hot(v[i], top[i], out);
      store(y + (first + i) * n, out);
    }
  }
}

// One longer row, in place: values become e^((x - top) / tau); returns the reciprocal of their sum.
GENCORE_INLINE float exponentials(std::int64_t n, float inv_tau, float* x, F& top) {
  const F infinity = splat(__builtin_inff());
  top = -infinity;
  for_each_vector(n, [&](std::int64_t i, auto at) {
    const F v = at.load(x + i), inside = splat(static_cast<float>(n - i));
    top = max(select(less(to_float((I)iota()), inside), v, -infinity), top);
  });
  top = max_lanes(top);
  WideSum total;
  for_each_vector(n, [&](std::int64_t i, auto at) {
    const F e = exp_minus_abs((at.load(x + i) - top) * inv_tau);
    at.store(x + i, e);
    total.add(select(less(to_float((I)iota()), splat(static_cast<float>(n - i))), e, splat(0.0f)));
  });
  return static_cast<float>(1.0 / total.value());
}

GENCORE_INLINE void softmax_long(std::int64_t n, float inv_tau, bool hard, float* x) {
  std::int64_t best = 0;
  if (hard) {
    for (std::int64_t i = 1; i < n; ++i) best = x[i] > x[best] ? i : best;
  }
  F top;
  const float scale = exponentials(n, inv_tau, x, top);
  for_each_vector(n, [&](std::int64_t i, auto at) {
    F out = at.load(x + i) * scale;
    if (hard) out = select(less_equal(splat(0.0f), out), splat(0.0f), out);
    at.store(x + i, out);
  });
  if (hard && x[best] == 0) x[best] = 1;
}

// The soft or hard draws of whole rows into y, which nothing is written around.
void draw_rows(NoiseRun<GumbelNoise>& noise, const Tile& tile, std::int64_t n, float inv_tau, bool hard,
               const float* logits, float* y) {
  TileBuffer x, out;
  const std::int64_t at = tile.row * n;
  if (n <= lanes) {
    perturb(noise, at, logits + at, tile.size(), x.data());
    softmax_short(x.data(), tile.rows, n, inv_tau, hard, out.data());
    for_each_vector(tile.size(), [&](std::int64_t i, auto v) { v.store(y + at + i, load(out.data() + i)); });
    return;
  }
  for (std::int64_t i = 0; i < tile.size(); i += tile_units) {
    const std::int64_t count = min_of(tile_units, tile.size() - i);
    perturb(noise, at + i, logits + at + i, count, x.data());
    for_each_vector(count, [&](std::int64_t j, auto v) { v.store(y + at + i + j, load(x.data() + j)); });
  }
  for (std::int64_t r = 0; r < tile.rows; ++r) softmax_long(n, inv_tau, hard, y + at + r * n);
}

// body(noise, tile of whole rows, however long)
template <class Body>
void for_each_rows(const NoiseSource& source, std::int64_t rows, std::int64_t n, const Body& body) {
  if (n == 0) return;
  for_each_row_task(rows, n, [&](std::int64_t begin, std::int64_t end) {
    NoiseRun<GumbelNoise> noise(source, end * n);
    const std::int64_t some = max_of(tile_units / n, 1);
    for (std::int64_t row = begin; row < end; row += some) body(noise, Tile{row, min_of(some, end - row), 0, n});
  });
}

void gumbel_softmax(const sample::GumbelSoftmax& op) {
  const std::int64_t n = op.logits.shape[1];
  const NoiseSource source(op, philox::gumbel_softmax, n);
  for_each_rows(source, op.logits.shape[0], n, [&](NoiseRun<GumbelNoise>& noise, const Tile& tile) {
    draw_rows(noise, tile, n, inverse(op.tau), op.hard, op.logits.data, op.y.data);
  });
}

// out = y (grad - grad . y) / tau of each row; out may be y.
void softmax_vjp_rows(const float* grad, const float* y, std::int64_t rows, std::int64_t n, float inv_tau, float* out) {
  if (n > lanes) {
    for (std::int64_t r = 0; r < rows; ++r, grad += n, y += n, out += n) {
      WideSum dot;
      for_each_vector(n, [&](std::int64_t i, auto at) { dot.add(at.load(grad + i) * at.load(y + i)); });
      const float mean = static_cast<float>(dot.value());
      for_each_vector(n, [&](std::int64_t i, auto at) {
        at.store(out + i, at.load(y + i) * ((at.load(grad + i) - mean) * inv_tau));
      });
    }
    return;
  }
  TileBuffer result;
  const PartVector row{static_cast<int>(n)};
  for (std::int64_t r = 0; r < rows; ++r) {
    const F g = row.load(grad + r * n), p = row.load(y + r * n);
    store(result.data() + r * n, p * ((g - sum_lanes(g * p)) * inv_tau));
  }
  for_each_vector(rows * n, [&](std::int64_t i, auto at) { at.store(out + i, load(result.data() + i)); });
}

void gumbel_softmax_vjp(const sample::GumbelSoftmaxVjp& op) {
  const std::int64_t n = op.grad.shape[1];
  const NoiseSource source(op, philox::gumbel_softmax, n);
  const float inv_tau = inverse(op.tau);
  for_each_rows(source, op.grad.shape[0], n, [&](NoiseRun<GumbelNoise>& noise, const Tile& tile) {
    const std::int64_t at = tile.row * n;
    const float* y = op.y.data + at;
    if (!op.y.given()) {
      draw_rows(noise, tile, n, inv_tau, false, op.logits.data, op.grad_logits.data);
      y = op.grad_logits.data + at;
    }
    softmax_vjp_rows(op.grad.data + at, y, tile.rows, n, inv_tau, op.grad_logits.data + at);
  });
}

// --- relaxed Bernoulli -----------------------------------------------------------------------------------------------

void relaxed_bernoulli(const sample::RelaxedBernoulli& op) {
  const NoiseSource source(op, philox::relaxed_bernoulli, op.logits.shape[1]);
  const float inv_tau = inverse(op.tau);
  for_each_noise_tile(LogisticNoise{}, source, op.logits.size(),
                      [&](std::int64_t first, std::int64_t count, const float* noise) {
    for_each_vector(count, [&](std::int64_t i, auto at) {
      const F x = at.load(op.logits.data + first + i) + load(noise + i);
      F y = logistic(x * inv_tau);
      if (op.hard) {
        const F bit = select(less(splat(0.0f), x), splat(1.0f), splat(0.0f));
        y = select(less_equal(splat(0.0f), y), bit, y);  // NaN stays
      }
      at.store(op.y.data + first + i, y);
    });
  });
}

// y comes from the forward pass, or is drawn again.
void relaxed_bernoulli_vjp(const sample::RelaxedBernoulliVjp& op) {
  const NoiseSource source(op, philox::relaxed_bernoulli, op.grad.shape[1]);
  const float inv_tau = inverse(op.tau);
  const bool again = !op.y.given();
  const auto tile = [&](std::int64_t first, std::int64_t count, const float* noise) {
    for_each_vector(count, [&](std::int64_t i, auto at) {
      const F y = again ? logistic((at.load(op.logits.data + first + i) + load(noise + i)) * inv_tau)
                        : at.load(op.y.data + first + i);
      at.store(op.grad_logits.data + first + i, (at.load(op.grad.data + first + i) * inv_tau) * (y * (1.0f - y)));
    });
  };
  if (again) {
    for_each_noise_tile(LogisticNoise{}, source, op.grad.size(), tile);
  } else {
    parallel_for(ceil_div(op.grad.size(), task_units), [&](std::int64_t task) {
      tile(task * task_units, min_of(op.grad.size() - task * task_units, task_units), nullptr);
    });
  }
}

}  // namespace

void fill_sample_relaxed(runtime::Table& table) {
  table.sample.GumbelSoftmax = gumbel_softmax;
  table.sample.GumbelSoftmaxVjp = gumbel_softmax_vjp;
  table.sample.RelaxedBernoulli = relaxed_bernoulli;
  table.sample.RelaxedBernoulliVjp = relaxed_bernoulli_vjp;
}

}  // namespace gencore::GENCORE_LEVEL
