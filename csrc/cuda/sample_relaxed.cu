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

NoiseSource source_of(const sample::Coordinates& op, philox::Domain domain, std::int64_t first_row) {
  return {op.key, philox::stream(domain, static_cast<std::uint64_t>(op.step), static_cast<std::uint64_t>(first_row))};
}

// 1 / tau, finite for subnormal tau too.
float inverse(float tau) {
  const float most = 3.40282347e38f, inv = 1.0f / tau;
  return inv < most ? inv : most;
}

// --- Gumbel-softmax --------------------------------------------------------------------------------------------------

// What both directions have in common. `y` is the output of a draw, or where a gradient puts the draw that it needs.
struct GumbelRows {
  NoiseSource source;
  std::int64_t first_row, rows, n;
  float inv_tau;
  bool hard;
  const float* logits;
};

// body(element - first, Gumbel variate) for elements first .. first + count - 1 of the flat layout. The block of each
// thread, number `i` of those that hold these elements, has four of them or fewer.
template <class Body>
__device__ void gumbel_quad(const NoiseSource& source, std::int64_t first, std::int64_t count, std::int64_t i,
                            const Body& body) {
  constexpr std::int64_t row_superblocks = philox::flat_units / 64;
  const std::int64_t superblock = first / 64 + i / 16, at = 64 * superblock + i % 16 - first;
  if (at + 48 < 0 || at >= count) return;
  const philox::Block words = source.block(superblock / row_superblocks,
                                           static_cast<std::uint32_t>(16 * (superblock % row_superblocks) + i % 16));
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const std::int64_t e = at + 16 * w;
    if (e >= 0 && e < count) body(e, GumbelNoise::of(philox::to_uniform(words.word[w])));
  }
}

// Blocks that hold elements first .. first + count - 1.
__device__ inline std::int64_t gumbel_blocks(std::int64_t first, std::int64_t count) {
  return 16 * ((first + count + 63) / 64 - first / 64);
}

// Rows of at most `most` elements, one a thread, in shared memory; an odd stride keeps threads on different banks.
template <int most>
struct ShortRows {
  float* x;
  std::int64_t first;  // row
  int rows, n, stride;

  __device__ ShortRows(float* memory, const GumbelRows& a)
      : x(memory),
        first(static_cast<std::int64_t>(blockIdx.x) * block_threads),
        rows(static_cast<int>(a.rows - first < block_threads ? a.rows - first : block_threads)),
        n(static_cast<int>(a.n)),
        stride(n | 1) {}
  __device__ float& at(std::uint32_t element) const {
    const std::uint32_t row = element / static_cast<std::uint32_t>(n);
    return x[row * stride + element - row * n];
  }
  __device__ int count() const { return rows * n; }

  // Perturbed logits, from all threads.
  __device__ void perturb(const GumbelRows& a) const {
    const std::int64_t begin = (a.first_row + first) * n, blocks = gumbel_blocks(begin, count());
    for (std::int64_t i = threadIdx.x; i < blocks; i += block_threads) {
      gumbel_quad(a.source, begin, count(), i, [&](std::int64_t e, float noise) {
        at(static_cast<std::uint32_t>(e)) = a.logits[first * n + e] + noise;
      });
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
  for (int e = threadIdx.x; e < tile.count(); e += block_threads) y[tile.first * tile.n + e] = tile.at(e);
}

// grad_logits = y (grad - grad . y) / tau; y is drawn where it is not given.
template <int most>
__global__ void __launch_bounds__(block_threads)
    short_rows_vjp(GumbelRows a, const float* grad, const float* y, float* grad_logits) {
  __shared__ float memory[block_threads * (most + 1)], mean[block_threads];
  const ShortRows<most> tile(memory, a);
  const std::int64_t base = tile.first * tile.n;
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
  __device__ void for_each_own(const Body& body) const {
    const std::int64_t begin = (a.first_row + row) * a.n, blocks = gumbel_blocks(begin, count);
    for (std::int64_t i = team.rank; i < blocks; i += team.size) {
      const std::int64_t at = 64 * (begin / 64 + i / 16) + i % 16 - begin;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const std::int64_t e = at + 16 * w;
        if (e >= 0 && e < count) body(e);
      }
    }
  }

  __device__ void softmax() const {
    const std::int64_t begin = (a.first_row + row) * a.n, blocks = gumbel_blocks(begin, count);
    float top = -infinity;
    for (std::int64_t i = team.rank; i < blocks; i += team.size) {
      gumbel_quad(a.source, begin, count, i, [&](std::int64_t e, float noise) {
        const float x = a.logits[row * a.n + e] + noise;
        y[e] = x;
        top = max(x, top);
      });
    }
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
  const GumbelRows a{
      source_of(op, philox::gumbel_softmax, 0), op.first_row, rows, n, inverse(op.tau), op.hard, op.logits.data};
  if (n == 0) return;
  if (n > short_row) return for_each_row(op, rows, quads_of(n), DrawLongRows{a, op.y.data});
  with_bound(n, [&](auto most) { launch(op, rows, draw_short_rows<decltype(most)::value>, a, op.y.data); });
}

void gumbel_softmax_vjp(const sample::GumbelSoftmaxVjp& op) {
  const std::int64_t rows = op.grad.shape[0], n = op.grad.shape[1];
  const GumbelRows a{
      source_of(op, philox::gumbel_softmax, 0), op.first_row, rows, n, inverse(op.tau), false, op.logits.data};
  const float* y = op.y.given() ? op.y.data : nullptr;
  if (n == 0) return;
  if (n > short_row) {
    return for_each_row(op, rows, quads_of(n), LongRowsVjp{a, op.grad.data, y, op.grad_logits.data});
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
    const FourVariates noise = noise_of<LogisticNoise>(source, q, q.row);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (!q.has(w)) break;
      const float x = op.logits[q.at(w)] + noise.value[w], soft = logistic(x * inv_tau);
      op.y[q.at(w)] = op.hard && soft >= 0.0f ? static_cast<float>(0.0f < x) : soft;  // NaN stays
    }
  }
};

void relaxed_bernoulli(const sample::RelaxedBernoulli& op) {
  for_each_quad(op, op.y.shape[0], op.y.shape[1],
                RelaxedBernoulliDraw{op, source_of(op, philox::relaxed_bernoulli, op.first_row), inverse(op.tau)});
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
    const FourVariates noise = noise_of<LogisticNoise>(source, q, q.row);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (q.has(w)) store(q.at(w), logistic((op.logits[q.at(w)] + noise.value[w]) * inv_tau));
    }
  }
};

void relaxed_bernoulli_vjp(const sample::RelaxedBernoulliVjp& op) {
  const RelaxedBernoulliGradient body{op, source_of(op, philox::relaxed_bernoulli, op.first_row), inverse(op.tau)};
  if (op.y.given()) {
    for_each_element(op, op.y.size(), body);
  } else {
    for_each_quad(op, op.grad.shape[0], op.grad.shape[1], body);
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
