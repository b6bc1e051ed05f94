// Draws at a temperature: Gumbel-softmax and relaxed Bernoulli, and their gradients.
//
// The limit: Gumbel-softmax reads 4 bytes an element and writes 4, 3 ps at 3 TB/s; its gradient moves 12. An element
// costs a quarter of a Philox block, two logarithms and an exponential, some 90 instructions, 3 ps. Short rows go through
// shared memory: their noise is drawn in the flat layout, their sums are taken by one thread a row.
#include "gencore/sample_reparam.h"
#include "noise.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

// 1 / tau, finite for subnormal tau too.
float inverse(float tau) {
  const float most = 3.40282347e38f, inv = 1.0f / tau;
  return inv < most ? inv : most;
}

// --- Gumbel-softmax --------------------------------------------------------------------------------------------------

// What both directions have in common. `y` is the output of a draw, or where a gradient puts the draw that it needs.
struct GumbelRows {
  NoiseSource source;
  std::int64_t rows, n;
  float inv_tau;
  bool hard;
  const float* logits;
};

// Rows of at most `most` elements, one a thread.
template <int most>
struct ShortRows : RowTile {
  float* x;

  __device__ ShortRows(float* memory, const GumbelRows& a) : RowTile(a.rows, a.n, block_threads), x(memory) {}
  __device__ float& at(std::int64_t element) const { return x[slot(element)]; }

  // Perturbed logits, from all threads.
  __device__ void perturb(const GumbelRows& a) const {
    const std::int64_t begin_flat = a.source.first + begin(), quads = quads_of(begin_flat, count());
    for (std::int64_t i = threadIdx.x; i < quads; i += block_threads) {
      const Quad q(begin_flat, count(), i);
      const FourVariates noise = noise_of<GumbelNoise>(a.source, q);
      q.each([&](int w, std::int64_t e) { at(e) = a.logits[begin() + e] + noise.value[w]; });
    }
    __syncthreads();
  }

  // This thread's row, in place.
  __device__ void softmax(const GumbelRows& a) const {
    if (static_cast<int>(threadIdx.x) < rows) {
      float* row = x + threadIdx.x * stride;
      float top = -infinity;
      int best = 0;
      for (int k = 0; k < n; ++k) {
        if (row[k] > top) {
          top = row[k];
          best = k;
        }
      }
      double total = 0;
      for (int k = 0; k < n; ++k) {
        row[k] = exp((row[k] - top) * a.inv_tau);
        total += static_cast<double>(row[k]);
      }
      const float scale = static_cast<float>(1.0 / total);
      for (int k = 0; k < n; ++k) {
        const float soft = row[k] * scale;
        row[k] = a.hard && soft >= 0.0f ? static_cast<float>(k == best) : soft;  // NaN stays
      }
    }
    __syncthreads();
  }
};

template <int most>
__global__ void __launch_bounds__(block_threads) draw_short_rows(GumbelRows a, float* y) {
  __shared__ float memory[block_threads * (most + 1)];
  const ShortRows<most> tile(memory, a);
  tile.perturb(a);
  tile.softmax(a);
  for (int e = threadIdx.x; e < tile.count(); e += block_threads) y[tile.begin() + e] = tile.at(e);
}

// grad_logits = y (grad - grad . y) / tau; y is drawn where it is not given.
template <int most>
__global__ void __launch_bounds__(block_threads)
    short_rows_vjp(GumbelRows a, const float* grad, const float* y, float* grad_logits) {
  __shared__ float memory[block_threads * (most + 1)], mean[block_threads];
  const ShortRows<most> tile(memory, a);
  const std::int64_t base = tile.begin();
  if (y == nullptr) {
    tile.perturb(a);
    tile.softmax(a);
  } else {
    for (int e = threadIdx.x; e < tile.count(); e += block_threads) tile.at(e) = y[base + e];
    __syncthreads();
  }
  if (static_cast<int>(threadIdx.x) < tile.rows) {
    double dot = 0;
    for (int k = 0; k < tile.n; ++k) {
      dot += static_cast<double>(grad[base + threadIdx.x * tile.n + k] * tile.x[threadIdx.x * tile.stride + k]);
    }
    mean[threadIdx.x] = static_cast<float>(dot);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < tile.count(); e += block_threads) {
    grad_logits[base + e] = tile.at(e) * ((grad[base + e] - mean[e / tile.n]) * a.inv_tau);
  }
}

// Longer rows, in place in device memory: a thread reads again only what it wrote itself.
struct LongRow {
  const GumbelRows& a;
  const Team& team;
  std::int64_t row, count;  // count: 0 where there is no such row
  float* y;

  template <class Body>
  __device__ void for_each_own_quad(const Body& body) const {
    const std::int64_t begin = a.source.first + row * a.n, quads = quads_of(begin, count);
    for (std::int64_t i = team.rank; i < quads; i += team.size) body(Quad(begin, count, i));
  }

  template <class Body>
  __device__ void for_each_own(const Body& body) const {
    for_each_own_quad([&](const Quad& q) { q.each([&](int, std::int64_t e) { body(e); }); });
  }

  __device__ void softmax() const {
    float top = -infinity;
    for_each_own_quad([&](const Quad& q) {
      const FourVariates noise = noise_of<GumbelNoise>(a.source, q);
      q.each([&](int w, std::int64_t e) {
        const float x = a.logits[row * a.n + e] + noise.value[w];
        y[e] = x;
        top = max(x, top);
      });
    });
    top = team.max(top);
    double total = 0;
    long long best = a.n;
    for_each_own([&](std::int64_t e) {
      if (y[e] == top && e < best) best = e;
      y[e] = exp((y[e] - top) * a.inv_tau);
      total += static_cast<double>(y[e]);
    });
    const float scale = static_cast<float>(1.0 / team.sum(total));
    best = team.min(best);
    for_each_own([&](std::int64_t e) {
      const float soft = y[e] * scale;
      y[e] = a.hard && soft >= 0.0f ? static_cast<float>(e == best) : soft;
    });
  }
};

struct DrawLongRows {
  GumbelRows a;
  float* y;
  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    LongRow{a, team, row, exists ? a.n : 0, y + row * a.n}.softmax();
  }
};

struct LongRowsVjp {
  GumbelRows a;
  const float *grad, *y;
  float* grad_logits;

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    float* out = grad_logits + row * a.n;
    const float *p = y == nullptr ? out : y + row * a.n, *g = grad + row * a.n;
    const LongRow work{a, team, row, exists ? a.n : 0, out};
    if (y == nullptr) work.softmax();
    double dot = 0;
    work.for_each_own([&](std::int64_t e) { dot += static_cast<double>(g[e] * p[e]); });
    const float mean = static_cast<float>(team.sum(dot));
    work.for_each_own([&](std::int64_t e) { out[e] = p[e] * ((g[e] - mean) * a.inv_tau); });
  }
};

constexpr std::int64_t short_row = 32;

// run(ShortRows' bound) for the smallest that holds rows of n.
template <class Run>
void with_bound(std::int64_t n, const Run& run) {
  if (n <= 8) return run(std::integral_constant<int, 8>{});
  if (n <= 16) return run(std::integral_constant<int, 16>{});
  return run(std::integral_constant<int, short_row>{});
}

void gumbel_softmax(const sample::GumbelSoftmax& op) {
  const std::int64_t rows = op.logits.shape[0], n = op.logits.shape[1];
  const GumbelRows a{NoiseSource(op, philox::gumbel_softmax, n), rows, n, inverse(op.tau), op.hard, op.logits.data};
  if (n == 0) return;
  if (n > short_row) return for_each_row(op, rows, ceil_div(n, 4), DrawLongRows{a, op.y.data});
  with_bound(n, [&](auto most) { launch(op, rows, draw_short_rows<decltype(most)::value>, a, op.y.data); });
}

void gumbel_softmax_vjp(const sample::GumbelSoftmaxVjp& op) {
  const std::int64_t rows = op.grad.shape[0], n = op.grad.shape[1];
  const GumbelRows a{NoiseSource(op, philox::gumbel_softmax, n), rows, n, inverse(op.tau), false, op.logits.data};
  const float* y = op.y.given() ? op.y.data : nullptr;
  if (n == 0) return;
  if (n > short_row) {
    return for_each_row(op, rows, ceil_div(n, 4), LongRowsVjp{a, op.grad.data, y, op.grad_logits.data});
  }
  with_bound(n, [&](auto most) {
    launch(op, rows, short_rows_vjp<decltype(most)::value>, a, op.grad.data, y, op.grad_logits.data);
  });
}

// --- relaxed Bernoulli -----------------------------------------------------------------------------------------------

struct RelaxedBernoulliDraw {
  sample::RelaxedBernoulli op;
  NoiseSource source;
  float inv_tau;

  __device__ void operator()(const Quad& q) const {
    const FourVariates noise = noise_of<LogisticNoise>(source, q);
    q.each([&](int w, std::int64_t i) {
      const float x = op.logits[i] + noise.value[w], soft = logistic(x * inv_tau);
      op.y[i] = op.hard && soft >= 0.0f ? static_cast<float>(0.0f < x) : soft;  // NaN stays
    });
  }
};

void relaxed_bernoulli(const sample::RelaxedBernoulli& op) {
  const NoiseSource source(op, philox::relaxed_bernoulli, op.y.shape[1]);
  for_each_quad(op, source, op.y.size(), RelaxedBernoulliDraw{op, source, inverse(op.tau)});
}

struct RelaxedBernoulliGradient {
  sample::RelaxedBernoulliVjp op;
  NoiseSource source;
  float inv_tau;

  __device__ void store(std::int64_t i, float y) const {
    op.grad_logits[i] = (op.grad[i] * inv_tau) * (y * (1.0f - y));
  }
  __device__ void operator()(std::int64_t i) const { store(i, op.y[i]); }
  __device__ void operator()(const Quad& q) const {
    const FourVariates noise = noise_of<LogisticNoise>(source, q);
    q.each([&](int w, std::int64_t i) { store(i, logistic((op.logits[i] + noise.value[w]) * inv_tau)); });
  }
};

void relaxed_bernoulli_vjp(const sample::RelaxedBernoulliVjp& op) {
  const NoiseSource source(op, philox::relaxed_bernoulli, op.grad.shape[1]);
  const RelaxedBernoulliGradient body{op, source, inverse(op.tau)};
  if (op.y.given()) {
    for_each_element(op, op.y.size(), body);
  } else {
    for_each_quad(op, source, op.grad.size(), body);
  }
}

}  // namespace

void fill_sample_relaxed(runtime::Table& table) {
  table.sample.GumbelSoftmax = gumbel_softmax;
  table.sample.GumbelSoftmaxVjp = gumbel_softmax_vjp;
  table.sample.RelaxedBernoulli = relaxed_bernoulli;
  table.sample.RelaxedBernoulliVjp = relaxed_bernoulli_vjp;
}

}  // namespace gencore::cuda
