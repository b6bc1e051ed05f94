// Reparameterised Gaussians and location-scale families, and their gradients. Noise is drawn again where a gradient needs it.
//
// The limit: a draw reads 8 bytes of parameters and writes 4, 4 ps at 3 TB/s; its gradient reads 12 and writes 8. Beside
// that each element costs a quarter of a Philox block, half a Box-Muller pair and an exponential, some 70 instructions:
// 4 ps on 132 multiprocessors that issue 128 a cycle at 1.7 GHz. Sums over rows are float64, one addition an element.
#include "gencore/sample_reparam.h"
#include "noise.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using sample::Kind;

NoiseSource source_of(const sample::Coordinates& op, philox::Domain domain) {
  return {op.key,
          philox::stream(domain, static_cast<std::uint64_t>(op.step), static_cast<std::uint64_t>(op.first_row))};
}

// Row s N + n of the draws is of row n of the parameters.
__device__ std::int64_t parameter_row(std::int64_t row, std::int64_t rows, std::int64_t samples) {
  std::int64_t draw = 0, n = row;
  if (samples > 1) divide(row, rows, draw, n);
  return n;
}

// --- Gaussian draws --------------------------------------------------------------------------------------------------

struct GaussianDraw {
  sample::GaussianReparam op;
  NoiseSource source;

  // z of a quad, and its terms of 2 kl and 2 log_ratio.
  __device__ void draw(const Quad& q, std::int64_t n, double& kl, double& ratio) const {
    const FourVariates eps = noise_of<NormalNoise>(source, q, q.row);
    const std::int64_t back = (q.row - n) * q.units;  // from an element of z to its parameters
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (!q.has(w)) break;
      const float m = op.mu[q.at(w) - back], lv = op.logvar[q.at(w) - back], e = eps.value[w];
      const float deviation = exp(0.5f * lv), z = fmaf(deviation, e, m);
      op.z[q.at(w)] = z;
      kl += static_cast<double>(fmaf(m, m, fmaf(deviation, deviation, -1.0f) - lv));
      ratio += static_cast<double>(fmaf(z, z, fmaf(-e, e, -lv)));
    }
  }

  __device__ void operator()(const Quad& q) const {
    double kl = 0, ratio = 0;
    draw(q, parameter_row(q.row, op.mu.shape[0], op.samples), kl, ratio);
  }

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t units = op.mu.shape[1], quads = exists ? quads_of(units) : 0;
    const std::int64_t n = parameter_row(row, op.mu.shape[0], op.samples);
    double kl = 0, ratio = 0;
    for (std::int64_t i = team.rank; i < quads; i += team.size) draw(Quad(row, i, units), n, kl, ratio);
    kl = team.sum(kl);
    ratio = team.sum(ratio);
    if (!exists || team.rank != 0) return;
    if (op.kl.given() && row == n) op.kl[n] = static_cast<float>(0.5 * kl);
    if (op.log_ratio.given()) op.log_ratio[row] = static_cast<float>(0.5 * ratio);
  }
};

void gaussian_reparam(const sample::GaussianReparam& op) {
  const GaussianDraw body{op, source_of(op, philox::normal)};
  if (op.kl.given() || op.log_ratio.given()) {
    for_each_row(op, op.z.shape[0], quads_of(op.z.shape[1]), body);
  } else {
    for_each_quad(op, op.z.shape[0], op.z.shape[1], body);
  }
}

// A quad of parameters, and a walk over its draws: sums over draws are taken in their order, in float32.
struct GaussianGradient {
  sample::GaussianReparamVjp op;
  NoiseSource source;

  __device__ void operator()(const Quad& q) const {
    const std::int64_t rows = op.mu.shape[0];
    const bool with_z = op.grad_z.given(), with_ratio = op.grad_log_ratio.given();
    float m[4] = {}, deviation[4] = {}, t_sum[4] = {}, t_eps[4] = {}, ratio = 0;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (!q.has(w)) break;
      m[w] = op.mu[q.at(w)];
      deviation[w] = exp(0.5f * op.logvar[q.at(w)]);
    }
    for (std::int64_t s = 0; s < op.samples && (with_z || with_ratio); ++s) {
      const std::int64_t row = s * rows + q.row;
      const FourVariates eps = noise_of<NormalNoise>(source, q, row);
      const float by_ratio = with_ratio ? op.grad_log_ratio[row] : 0.0f;
      ratio += by_ratio;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if (!q.has(w)) break;
        const float e = eps.value[w];
        float t = with_z ? op.grad_z[s * rows * q.units + q.at(w)] : 0.0f;
        if (with_ratio) t = fmaf(by_ratio, fmaf(deviation[w], e, m[w]), t);
        t_eps[w] = fmaf(t, e, t_eps[w]);
        t_sum[w] += t;
      }
    }
    const float by_kl = op.grad_kl.given() ? op.grad_kl[q.row] : 0.0f;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (!q.has(w)) break;
      float by_mu = t_sum[w], by_logvar = deviation[w] * t_eps[w];
      if (!with_z && !with_ratio) by_logvar = 0;  // deviation may be inf
      if (with_ratio) by_logvar -= ratio;
      if (op.grad_kl.given()) {
        by_mu = fmaf(by_kl, m[w], by_mu);
        by_logvar = fmaf(by_kl, fmaf(deviation[w], deviation[w], -1.0f), by_logvar);
      }
      op.grad_mu[q.at(w)] = by_mu;
      op.grad_logvar[q.at(w)] = 0.5f * by_logvar;
    }
  }
};

void gaussian_reparam_vjp(const sample::GaussianReparamVjp& op) {
  for_each_quad(op, op.mu.shape[0], op.mu.shape[1], GaussianGradient{op, source_of(op, philox::normal)});
}

// --- Gaussian densities ----------------------------------------------------------------------------------------------

struct GaussianDensity {
  sample::GaussianLogProb op;

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    const std::int64_t units = op.mu.shape[1];
    const std::int64_t at = parameter_row(row, op.mu.shape[0], op.samples) * units;
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
    const FourVariates v = noise_of<Noise>(source, q, q.row);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (!q.has(w)) break;
      const float x = fmaf(op.scale[q.at(w)], v.value[w], op.loc.given() ? op.loc[q.at(w)] : 0.0f);
      op.out[q.at(w)] = op.kind == Kind::log_normal ? exp(x) : x;
    }
  }
};

template <class Noise>
struct LocationScaleGradient {
  sample::LocationScaleVjp op;
  NoiseSource source;

  __device__ void operator()(const Quad& q) const {
    const FourVariates v = noise_of<Noise>(source, q, q.row);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if (!q.has(w)) break;
      float g = op.grad[q.at(w)];
      if (op.kind == Kind::log_normal) g *= op.y[q.at(w)];
      if (op.grad_loc.given()) op.grad_loc[q.at(w)] = g;
      op.grad_scale[q.at(w)] = g * v.value[w];
    }
  }
};

// Body<Noise> over a matrix, with the noise of the op's kind.
template <template <class> class Body, class Op>
void with_noise_of_kind(const Op& op, std::int64_t rows, std::int64_t units) {
  const auto run = [&](auto noise, philox::Domain domain) {
    for_each_quad(op, rows, units, Body<decltype(noise)>{op, source_of(op, domain)});
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

void location_scale(const sample::LocationScale& op) {
  with_noise_of_kind<LocationScaleDraw>(op, op.out.shape[0], op.out.shape[1]);
}

void location_scale_vjp(const sample::LocationScaleVjp& op) {
  with_noise_of_kind<LocationScaleGradient>(op, op.grad.shape[0], op.grad.shape[1]);
}

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
