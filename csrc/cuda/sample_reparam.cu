// Reparameterised Gaussians and location-scale families, and their gradients. Noise is drawn again where a gradient needs it.
//
// The limit: a draw reads 8 bytes of parameters and writes 4, 4 ps at 3 TB/s; its gradient reads 12 and writes 8. Beside
// that each element costs a quarter of a Philox block, half a Box-Muller pair and an exponential, some 70 instructions:
// 4 ps on 132 multiprocessors that issue 128 a cycle at 1.7 GHz. Sums over rows are float64, one addition an element;
// short rows go through shared memory, so that their quads hold four elements whatever their length. Rows of more than
// 128 have teams, and quads of their own at either end: 130 elements meet 48 or 64 where 33 would do, 1000 meet 256 or
// 272 where 250 would. A gradient of several draws takes a quad through all of them where each fills whole superblocks
// (N D a multiple of 64); where not, an element draws its own blocks, at two and a half times the arithmetic of noise.
#include "gencore/sample_reparam.h"
#include "noise.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using sample::Kind;

// Row s N + n of the draws is of row n of the parameters, and so with elements.
__device__ std::int64_t parameter_of(std::int64_t i, std::int64_t size, std::int64_t samples) {
  std::int64_t draw = 0, parameter = i;
  if (samples > 1) divide(i, size, draw, parameter);
  return parameter;
}

// --- Gaussian draws --------------------------------------------------------------------------------------------------

struct GaussianDraw {
  sample::GaussianReparam op;
  NoiseSource source;

  struct Terms {
    float kl, ratio;
  };

  // Element i of z, and its terms of 2 kl and 2 log_ratio.
  __device__ Terms draw(std::int64_t i, float e) const {
    const std::int64_t parameter = parameter_of(i, op.mu.size(), op.samples);
    const float m = op.mu[parameter], lv = op.logvar[parameter];
    const float deviation = exp(0.5f * lv), z = fmaf(deviation, e, m);
    op.z[i] = z;
    return {fmaf(m, m, fmaf(deviation, deviation, -1.0f) - lv), fmaf(z, z, fmaf(-e, e, -lv))};
  }

  // The same of a quad of the elements from element `first` on: take(element - first, terms).
  template <class Take>
  __device__ void draw(const Quad& q, std::int64_t first, const Take& take) const {
    const FourVariates eps = noise_of<NormalNoise>(source, q);
    q.each([&](int w, std::int64_t e) { take(e, draw(first + e, eps.value[w])); });
  }

  __device__ void store_sums(std::int64_t row, double kl, double ratio) const {
    if (op.kl.given() && row < op.mu.shape[0]) op.kl[row] = static_cast<float>(0.5 * kl);
    if (op.log_ratio.given()) op.log_ratio[row] = static_cast<float>(0.5 * ratio);
  }

  // Without sums.
  __device__ void operator()(const Quad& q) const {
    draw(q, 0, [](std::int64_t, const Terms&) {});
  }

  // A row, with sums.
  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t n = op.z.shape[1], count = exists ? n : 0, first = row * n;
    const std::int64_t begin = source.first + first, quads = quads_of(begin, count);
    double kl = 0, ratio = 0;
    for (std::int64_t i = team.rank; i < quads; i += team.size) {
      draw(Quad(begin, count, i), first, [&](std::int64_t, const Terms& terms) {
        kl += static_cast<double>(terms.kl);
        ratio += static_cast<double>(terms.ratio);
      });
    }
    kl = team.sum(kl);
    ratio = team.sum(ratio);
    if (exists && team.rank == 0) store_sums(row, kl, ratio);
  }
};

constexpr std::int64_t short_row = 128;
constexpr int tile_floats = 2048;  // two quads a thread

// Tiles of short rows, with sums: rows share quads, and the terms go through shared memory, where a thread sums a row.
__global__ void __launch_bounds__(block_threads) draw_short_rows(GaussianDraw body, int most) {
  __shared__ float kl[tile_floats], ratio[tile_floats];
  const RowTile tile(body.op.z.shape[0], body.op.z.shape[1], most);
  const std::int64_t begin = body.source.first + tile.begin(), quads = quads_of(begin, tile.count());
  for (std::int64_t i = threadIdx.x; i < quads; i += block_threads) {
    body.draw(Quad(begin, tile.count(), i), tile.begin(), [&](std::int64_t e, const GaussianDraw::Terms& terms) {
      kl[tile.slot(e)] = terms.kl;
      ratio[tile.slot(e)] = terms.ratio;
    });
  }
  __syncthreads();
  for (int r = threadIdx.x; r < tile.rows; r += block_threads) {
    double kl_sum = 0, ratio_sum = 0;
    for (int k = r * tile.stride; k < r * tile.stride + tile.n; ++k) {
      kl_sum += static_cast<double>(kl[k]);
      ratio_sum += static_cast<double>(ratio[k]);
    }
    body.store_sums(tile.first + r, kl_sum, ratio_sum);
  }
}

void gaussian_reparam(const sample::GaussianReparam& op) {
  const std::int64_t rows = op.z.shape[0], n = op.z.shape[1];
  const GaussianDraw body{op, NoiseSource(op, philox::normal, n)};
  if (!op.kl.given() && !op.log_ratio.given()) {
    for_each_quad(op, body.source, op.z.size(), body);
  } else if (n <= short_row) {
    const int most = tile_floats / static_cast<int>(n | 1);
    launch(op, ceil_div(rows, most) * block_threads, draw_short_rows, body, most);
  } else {
    for_each_row(op, rows, ceil_div(n, 4), body);
  }
}

// Sums over draws are taken in their order, in float32.
struct GaussianGradient {
  sample::GaussianReparamVjp op;
  NoiseSource source;

  // An element of the parameters, and its sums.
  struct Element {
    std::int64_t row;
    float m, deviation, t, t_eps, ratio;
  };

  __device__ Element element(std::int64_t i) const {
    std::int64_t row = 0, unit;
    if (op.grad_kl.given() || op.grad_log_ratio.given()) divide(i, op.mu.shape[1], row, unit);
    return {row, op.mu[i], exp(0.5f * op.logvar[i]), 0.0f, 0.0f, 0.0f};
  }

  __device__ std::int64_t draws() const { return op.grad_z.given() || op.grad_log_ratio.given() ? op.samples : 0; }

  __device__ void add(Element& a, std::int64_t i, std::int64_t s, float e) const {
    float t = op.grad_z.given() ? op.grad_z[s * op.mu.size() + i] : 0.0f;
    if (op.grad_log_ratio.given()) {
      const float by_ratio = op.grad_log_ratio[s * op.mu.shape[0] + a.row];
      t = fmaf(by_ratio, fmaf(a.deviation, e, a.m), t);
      a.ratio += by_ratio;
    }
    a.t_eps = fmaf(t, e, a.t_eps);
    a.t += t;
  }

  __device__ void store(const Element& a, std::int64_t i) const {
    float by_mu = a.t, by_logvar = draws() > 0 ? a.deviation * a.t_eps : 0.0f;  // deviation may be inf
    if (op.grad_log_ratio.given()) by_logvar -= a.ratio;
    if (op.grad_kl.given()) {
      const float by_kl = op.grad_kl[a.row];
      by_mu = fmaf(by_kl, a.m, by_mu);
      by_logvar = fmaf(by_kl, fmaf(a.deviation, a.deviation, -1.0f), by_logvar);
    }
    op.grad_mu[i] = by_mu;
    op.grad_logvar[i] = 0.5f * by_logvar;
  }

  // Elements that share a block in every draw.
  __device__ void operator()(const Quad& q) const {
    Element four[4];
    q.each([&](int w, std::int64_t i) { four[w] = element(i); });
    for (std::int64_t s = 0; s < draws(); ++s) {
      Quad drawn = q;
      drawn.block += static_cast<std::uint64_t>(s * (op.mu.size() / 4));
      const FourVariates eps = noise_of<NormalNoise>(source, drawn);
      q.each([&](int w, std::int64_t i) { add(four[w], i, s, eps.value[w]); });
    }
    q.each([&](int w, std::int64_t i) { store(four[w], i); });
  }

  // One element, wherever it is in each draw.
  __device__ void operator()(std::int64_t i) const {
    Element one = element(i);
    for (std::int64_t s = 0; s < draws(); ++s) add(one, i, s, normal_at(source, s * op.mu.size() + i));
    store(one, i);
  }
};

void gaussian_reparam_vjp(const sample::GaussianReparamVjp& op) {
  const GaussianGradient body{op, NoiseSource(op, philox::normal, op.mu.shape[1])};
  if (op.samples == 1 || op.mu.size() % 64 == 0) {  // whole superblocks from one draw to the next
    for_each_quad(op, body.source, op.mu.size(), body);
  } else {
    for_each_element(op, op.mu.size(), body);
  }
}

// --- Gaussian densities ----------------------------------------------------------------------------------------------

struct GaussianDensity {
  sample::GaussianLogProb op;

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t units = op.mu.shape[1];
    const std::int64_t at = parameter_of(row, op.mu.shape[0], op.samples) * units;
    double sum = 0;
    for (std::int64_t d = team.rank; exists && d < units; d += team.size) {
      const float lv = op.logvar[at + d];
      const float scaled = (op.x[row * units + d] - op.mu[at + d]) * exp(-0.5f * lv);
      sum += static_cast<double>(fmaf(scaled, scaled, lv));
    }
    sum = team.sum(sum);
    const double constant = static_cast<double>(units) * 1.8378770664093454836;  // D log 2 pi
    if (exists && team.rank == 0) op.out[row] = static_cast<float>(-0.5 * (sum + constant));
  }
};

void gaussian_log_prob(const sample::GaussianLogProb& op) {
  for_each_row(op, op.x.shape[0], op.x.shape[1], GaussianDensity{op});
}

struct GaussianDensityGradient {
  sample::GaussianLogProbVjp op;

  __device__ void operator()(std::int64_t i) const {
    const std::int64_t rows = op.mu.shape[0], units = op.mu.shape[1];
    std::int64_t row, unit;
    divide(i, units, row, unit);
    const float m = op.mu[i], precision = exp(-0.5f * op.logvar[i]);
    float by_mu = 0, by_logvar = 0;
    for (std::int64_t s = 0; s < op.samples; ++s) {
      const std::int64_t at = s * rows * units + i;
      const float g = op.grad[s * rows + row], scaled = (op.x[at] - m) * precision;
      const float by_x = g * (scaled * precision);
      if (op.grad_x.given()) op.grad_x[at] = -by_x;
      by_mu += by_x;
      by_logvar += g * fmaf(scaled, scaled, -1.0f);
    }
    if (!op.grad_mu.given()) return;
    op.grad_mu[i] = by_mu;
    op.grad_logvar[i] = 0.5f * by_logvar;
  }
};

void gaussian_log_prob_vjp(const sample::GaussianLogProbVjp& op) {
  for_each_element(op, op.mu.size(), GaussianDensityGradient{op});
}

// --- location and scale ----------------------------------------------------------------------------------------------

template <class Noise>
struct LocationScaleDraw {
  sample::LocationScale op;
  NoiseSource source;

  __device__ void operator()(const Quad& q) const {
    const FourVariates v = noise_of<Noise>(source, q);
    q.each([&](int w, std::int64_t i) {
      const float x = fmaf(op.scale[i], v.value[w], op.loc.given() ? op.loc[i] : 0.0f);
      op.out[i] = op.kind == Kind::log_normal ? exp(x) : x;
    });
  }
};

template <class Noise>
struct LocationScaleGradient {
  sample::LocationScaleVjp op;
  NoiseSource source;

  __device__ void operator()(const Quad& q) const {
    const FourVariates v = noise_of<Noise>(source, q);
    q.each([&](int w, std::int64_t i) {
      float g = op.grad[i];
      if (op.kind == Kind::log_normal) g *= op.y[i];
      if (op.grad_loc.given()) op.grad_loc[i] = g;
      op.grad_scale[i] = g * v.value[w];
    });
  }
};

// Body<Noise> over the elements of `matrix`, with the noise of the op's kind.
template <template <class> class Body, class Op, class Matrix>
void with_noise_of_kind(const Op& op, const Matrix& matrix) {
  const auto run = [&](auto noise, philox::Domain domain) {
    const NoiseSource source(op, domain, matrix.shape[1]);
    for_each_quad(op, source, matrix.size(), Body<decltype(noise)>{op, source});
  };
  switch (op.kind) {
    case Kind::normal:
    case Kind::log_normal: return run(NormalNoise{}, philox::normal);
    case Kind::logistic: return run(LogisticNoise{}, philox::logistic);
    case Kind::laplace: return run(LaplaceNoise{}, philox::laplace);
    case Kind::gumbel: return run(GumbelNoise{}, philox::gumbel);
    case Kind::uniform: return run(UniformNoise{}, philox::uniform);
    case Kind::exponential: return run(ExponentialNoise{}, philox::exponential);
  }
}

void location_scale(const sample::LocationScale& op) { with_noise_of_kind<LocationScaleDraw>(op, op.out); }

void location_scale_vjp(const sample::LocationScaleVjp& op) { with_noise_of_kind<LocationScaleGradient>(op, op.grad); }

}  // namespace

void fill_sample_reparam(runtime::Table& table) {
  table.sample.GaussianReparam = gaussian_reparam;
  table.sample.GaussianReparamVjp = gaussian_reparam_vjp;
  table.sample.GaussianLogProb = gaussian_log_prob;
  table.sample.GaussianLogProbVjp = gaussian_log_prob_vjp;
  table.sample.LocationScale = location_scale;
  table.sample.LocationScaleVjp = location_scale_vjp;
}

}  // namespace gencore::cuda
