// Reparameterised draws: a differentiable function of the parameters and of noise that does not depend on them.
//
// Noise is addressed by coordinates (random.h): the backward ops compute it again, and none is ever stored. In ops with
// `samples`, S, row s N + n of an (S N, D) array is draw s of row n of the (N, D) parameters, and its noise is that of
// row first_row + s N + n. NaN and inf spread within their row and no further.
#pragma once

#include "gencore/sample_coordinates.h"

// clang-format off
#define GENCORE_SAMPLE_REPARAM_OPS(X)         \
  X(GaussianReparam) X(GaussianReparamVjp)    \
  X(GaussianLogProb) X(GaussianLogProbVjp)    \
  X(LocationScale) X(LocationScaleVjp)        \
  X(GumbelSoftmax) X(GumbelSoftmaxVjp)        \
  X(RelaxedBernoulli) X(RelaxedBernoulliVjp)
// clang-format on

namespace gencore::sample {

// z = mu + e^(logvar / 2) eps, with the eps of sample.normal at these coordinates;
// kl[n] = 1/2 sum_d (mu^2 + e^logvar - 1 - logvar), the divergence of N(mu, e^logvar) from N(0, 1);
// log_ratio[r] = log N(z_r; mu, e^logvar) - log N(z_r; 0, 1) = sum_d (z^2 - eps^2 - logvar) / 2.
// Terms are float32, their sums float64, rounded once when stored.
struct GaussianReparam : Coordinates {
  static constexpr const char* name = "sample.gaussian_reparam";
  Matrix<const float> mu{}, logvar{};  // (N, D)
  std::int64_t samples = 1;            // S
  Matrix<float> z{};                   // (S N, D)
  Vector<float> kl{};                  // (N,), optional
  Vector<float> log_ratio{};           // (S N,), optional

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("mu", &GaussianReparam::mu);
    f("logvar", &GaussianReparam::logvar);
    f("samples", &GaussianReparam::samples);
    f("z", &GaussianReparam::z);
    f("kl", &GaussianReparam::kl);
    f("log_ratio", &GaussianReparam::log_ratio);
    coordinate_fields<GaussianReparam>(f);
  }
};

// With t = grad_z + grad_log_ratio z, summed over the S draws of each row:
// grad_mu = sum t + grad_kl mu;  grad_logvar = 1/2 (sum (t e^(logvar / 2) eps - grad_log_ratio) + grad_kl (e^logvar - 1)).
// A gradient that is not given is 0. Sums over draws are float32, in the order of s.
struct GaussianReparamVjp : Coordinates {
  static constexpr const char* name = "sample.gaussian_reparam_vjp";
  Matrix<const float> mu{}, logvar{};      // (N, D)
  std::int64_t samples = 1;                // S
  Matrix<const float> grad_z{};            // (S N, D), optional
  Vector<const float> grad_kl{};           // (N,), optional
  Vector<const float> grad_log_ratio{};    // (S N,), optional
  Matrix<float> grad_mu{}, grad_logvar{};  // (N, D)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("mu", &GaussianReparamVjp::mu);
    f("logvar", &GaussianReparamVjp::logvar);
    f("samples", &GaussianReparamVjp::samples);
    f("grad_z", &GaussianReparamVjp::grad_z);
    f("grad_kl", &GaussianReparamVjp::grad_kl);
    f("grad_log_ratio", &GaussianReparamVjp::grad_log_ratio);
    f("grad_mu", &GaussianReparamVjp::grad_mu);
    f("grad_logvar", &GaussianReparamVjp::grad_logvar);
    coordinate_fields<GaussianReparamVjp>(f);
  }
};

// out[s N + n] = sum_d log N(x; mu, e^logvar) = -1/2 sum_d ((x - mu)^2 e^-logvar + logvar + log 2 pi). Terms are
// float32, their sums float64.
struct GaussianLogProb : OpBase {
  static constexpr const char* name = "sample.gaussian_log_prob";
  Matrix<const float> x{};             // (S N, D)
  Matrix<const float> mu{}, logvar{};  // (N, D)
  std::int64_t samples = 1;            // S
  Vector<float> out{};                 // (S N,)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("x", &GaussianLogProb::x);
    f("mu", &GaussianLogProb::mu);
    f("logvar", &GaussianLogProb::logvar);
    f("samples", &GaussianLogProb::samples);
    f("out", &GaussianLogProb::out);
  }
};

// With e = (x - mu) e^-logvar: grad_x = -grad e; grad_mu = sum_s grad e; grad_logvar = 1/2 sum_s grad ((x - mu) e - 1).
struct GaussianLogProbVjp : OpBase {
  static constexpr const char* name = "sample.gaussian_log_prob_vjp";
  Vector<const float> grad{};              // (S N,)
  Matrix<const float> x{};                 // (S N, D)
  Matrix<const float> mu{}, logvar{};      // (N, D)
  std::int64_t samples = 1;                // S
  Matrix<float> grad_x{};                  // (S N, D), optional
  Matrix<float> grad_mu{}, grad_logvar{};  // (N, D), both or neither

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &GaussianLogProbVjp::grad);
    f("x", &GaussianLogProbVjp::x);
    f("mu", &GaussianLogProbVjp::mu);
    f("logvar", &GaussianLogProbVjp::logvar);
    f("samples", &GaussianLogProbVjp::samples);
    f("grad_x", &GaussianLogProbVjp::grad_x);
    f("grad_mu", &GaussianLogProbVjp::grad_mu);
    f("grad_logvar", &GaussianLogProbVjp::grad_logvar);
  }
};

// Standard noise. normal, uniform and exponential are those of sample.normal, .uniform and .exponential at the same
// coordinates; of the uniform u of a domain of their own, logistic is log(u / (1 - u)), laplace is log 2u below 1/2 and
// -log 2(1 - u) above, gumbel is -log(-log u).
enum class Kind : std::int32_t {
  normal = 0,
  logistic = 1,
  laplace = 2,
  gumbel = 3,
  uniform = 4,
  exponential = 5,
  log_normal = 6,
};

// out = loc + scale noise; log_normal: out = e^(loc + scale noise) with normal noise; exponential has no loc.
struct LocationScale : Coordinates {
  static constexpr const char* name = "sample.location_scale";
  Matrix<const float> loc{};    // (N, D); not with exponential
  Matrix<const float> scale{};  // (N, D)
  Kind kind{};
  Matrix<float> out{};  // (N, D)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("loc", &LocationScale::loc);
    f("scale", &LocationScale::scale);
    f("kind", &LocationScale::kind);
    f("out", &LocationScale::out);
    coordinate_fields<LocationScale>(f);
  }
};

// grad_loc = grad h, grad_scale = grad h noise, where h is the output of log_normal and 1 for the other kinds.
struct LocationScaleVjp : Coordinates {
  static constexpr const char* name = "sample.location_scale_vjp";
  Matrix<const float> grad{};  // (N, D)
  Matrix<const float> y{};     // (N, D), the output; log_normal only
  Kind kind{};
  Matrix<float> grad_loc{};    // (N, D), optional
  Matrix<float> grad_scale{};  // (N, D)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &LocationScaleVjp::grad);
    f("y", &LocationScaleVjp::y);
    f("kind", &LocationScaleVjp::kind);
    f("grad_loc", &LocationScaleVjp::grad_loc);
    f("grad_scale", &LocationScaleVjp::grad_scale);
    coordinate_fields<LocationScaleVjp>(f);
  }
};

// A draw at a temperature.
struct Relaxed : Coordinates {
  float tau = 1;

  template <class Op, class F>
  static void relaxed_fields(F&& f) {
    f("tau", &Op::tau);
    coordinate_fields<Op>(f);
  }
};

// y[n] = softmax((logits[n] + G) / tau), G = -log(-log u) with the uniforms of domain gumbel_softmax in the flat layout,
// rows counted from first_row; hard: the one-hot of y's largest (the first of equals).
struct GumbelSoftmax : Relaxed {
  static constexpr const char* name = "sample.gumbel_softmax";
  Matrix<const float> logits{};  // (N, K)
  bool hard = false;
  Matrix<float> y{};  // (N, K)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("logits", &GumbelSoftmax::logits);
    f("hard", &GumbelSoftmax::hard);
    f("y", &GumbelSoftmax::y);
    relaxed_fields<GumbelSoftmax>(f);
  }
};

// grad_logits = y (grad - sum_k grad y) / tau with the soft y, which is given or drawn again from the logits.
struct GumbelSoftmaxVjp : Relaxed {
  static constexpr const char* name = "sample.gumbel_softmax_vjp";
  Matrix<const float> grad{};    // (N, K)
  Matrix<const float> y{};       // (N, K), or
  Matrix<const float> logits{};  // (N, K)
  Matrix<float> grad_logits{};   // (N, K)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &GumbelSoftmaxVjp::grad);
    f("y", &GumbelSoftmaxVjp::y);
    f("logits", &GumbelSoftmaxVjp::logits);
    f("grad_logits", &GumbelSoftmaxVjp::grad_logits);
    relaxed_fields<GumbelSoftmaxVjp>(f);
  }
};

// y = logistic((logits + log(u / (1 - u))) / tau), u of domain relaxed_bernoulli; hard: 1 where y > 1/2, else 0.
struct RelaxedBernoulli : Relaxed {
  static constexpr const char* name = "sample.relaxed_bernoulli";
  Matrix<const float> logits{};  // (N, D)
  bool hard = false;
  Matrix<float> y{};  // (N, D)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("logits", &RelaxedBernoulli::logits);
    f("hard", &RelaxedBernoulli::hard);
    f("y", &RelaxedBernoulli::y);
    relaxed_fields<RelaxedBernoulli>(f);
  }
};

// grad_logits = grad y (1 - y) / tau with the soft y, which is given or drawn again from the logits.
struct RelaxedBernoulliVjp : Relaxed {
  static constexpr const char* name = "sample.relaxed_bernoulli_vjp";
  Matrix<const float> grad{};    // (N, D)
  Matrix<const float> y{};       // (N, D), or
  Matrix<const float> logits{};  // (N, D)
  Matrix<float> grad_logits{};   // (N, D)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("grad", &RelaxedBernoulliVjp::grad);
    f("y", &RelaxedBernoulliVjp::y);
    f("logits", &RelaxedBernoulliVjp::logits);
    f("grad_logits", &RelaxedBernoulliVjp::grad_logits);
    relaxed_fields<RelaxedBernoulliVjp>(f);
  }
};

GENCORE_API void run(const GaussianReparam& op);
GENCORE_API void run(const GaussianReparamVjp& op);
GENCORE_API void run(const GaussianLogProb& op);
GENCORE_API void run(const GaussianLogProbVjp& op);
GENCORE_API void run(const LocationScale& op);
GENCORE_API void run(const LocationScaleVjp& op);
GENCORE_API void run(const GumbelSoftmax& op);
GENCORE_API void run(const GumbelSoftmaxVjp& op);
GENCORE_API void run(const RelaxedBernoulli& op);
GENCORE_API void run(const RelaxedBernoulliVjp& op);

namespace detail {

// The (N, D) parameters of a Gaussian, and how many draws each row has.
inline void gaussian(const char* op, const Matrix<const float>& mu, const Matrix<const float>& logvar,
                     std::int64_t samples) {
  check::given(op, "mu", mu);
  check::shape(op, "logvar", logvar, {mu.shape[0], mu.shape[1]}, "the shape of mu");
  check::in_range(op, "samples", samples, 1, (std::int64_t{1} << 32) / (mu.shape[0] > 0 ? mu.shape[0] : 1));
}

inline void kind(const char* op, Kind kind) {
  check::in_range(op, "kind", static_cast<std::int64_t>(kind), 0, static_cast<std::int64_t>(Kind::log_normal));
}

// A gradient through a relaxed draw needs the draw, or what to draw it from.
inline void relaxed_vjp(const char* op, const Matrix<const float>& grad, const Matrix<const float>& y,
                        const Matrix<const float>& logits, const Matrix<float>& grad_logits) {
  check::given(op, "grad", grad);
  if (!y.given() && !logits.given()) check::fail(op, "y or logits", "to be given", "nothing");
  if (y.given()) check::shape(op, "y", y, {grad.shape[0], grad.shape[1]}, "the shape of grad");
  if (logits.given()) check::shape(op, "logits", logits, {grad.shape[0], grad.shape[1]}, "the shape of grad");
  check::shape(op, "grad_logits", grad_logits, {grad.shape[0], grad.shape[1]}, "the shape of grad");
}

}  // namespace detail

inline void GaussianReparam::check() const {
  detail::gaussian(name, mu, logvar, samples);
  const std::int64_t rows = samples * mu.shape[0];
  check::shape(name, "z", z, {rows, mu.shape[1]}, "samples times the rows of mu");
  if (kl.given()) check::shape(name, "kl", kl, {mu.shape[0]}, "the rows of mu");
  if (log_ratio.given()) check::shape(name, "log_ratio", log_ratio, {rows}, "the rows of z");
  check_coordinates(name, rows, mu.shape[1]);
}

inline void GaussianReparamVjp::check() const {
  detail::gaussian(name, mu, logvar, samples);
  const std::int64_t rows = samples * mu.shape[0], units = mu.shape[1];
  if (grad_z.given()) check::shape(name, "grad_z", grad_z, {rows, units}, "samples times the rows of mu");
  if (grad_kl.given()) check::shape(name, "grad_kl", grad_kl, {mu.shape[0]}, "the rows of mu");
  if (grad_log_ratio.given()) {
    check::shape(name, "grad_log_ratio", grad_log_ratio, {rows}, "samples times the rows of mu");
  }
  check::shape(name, "grad_mu", grad_mu, {mu.shape[0], units}, "the shape of mu");
  check::shape(name, "grad_logvar", grad_logvar, {mu.shape[0], units}, "the shape of mu");
  check_coordinates(name, rows, mu.shape[1]);
}

inline void GaussianLogProb::check() const {
  detail::gaussian(name, mu, logvar, samples);
  check::shape(name, "x", x, {samples * mu.shape[0], mu.shape[1]}, "samples times the rows of mu");
  check::shape(name, "out", out, {x.shape[0]}, "the rows of x");
}

inline void GaussianLogProbVjp::check() const {
  detail::gaussian(name, mu, logvar, samples);
  const std::int64_t rows = samples * mu.shape[0], units = mu.shape[1];
  check::shape(name, "x", x, {rows, units}, "samples times the rows of mu");
  check::shape(name, "grad", grad, {rows}, "the rows of x");
  if (grad_x.given()) check::shape(name, "grad_x", grad_x, {rows, units}, "the shape of x");
  if (grad_mu.given() || grad_logvar.given()) {
    check::shape(name, "grad_mu", grad_mu, {mu.shape[0], units}, "the shape of mu");
    check::shape(name, "grad_logvar", grad_logvar, {mu.shape[0], units}, "the shape of mu");
  }
}

inline void LocationScale::check() const {
  detail::kind(name, kind);
  check::given(name, "scale", scale);
  if (kind != Kind::exponential) {
    check::shape(name, "loc", loc, {scale.shape[0], scale.shape[1]}, "the shape of scale");
  } else if (loc.given()) {
    check::fail(name, "loc", "to be left out where kind is exponential", "an array");
  }
  check::shape(name, "out", out, {scale.shape[0], scale.shape[1]}, "the shape of scale");
  check_coordinates(name, scale.shape[0], scale.shape[1]);
}

inline void LocationScaleVjp::check() const {
  detail::kind(name, kind);
  check::given(name, "grad", grad);
  if (kind == Kind::log_normal || y.given()) {
    check::shape(name, "y", y, {grad.shape[0], grad.shape[1]}, "the shape of grad");
  }
  if (grad_loc.given()) {
    check::shape(name, "grad_loc", grad_loc, {grad.shape[0], grad.shape[1]}, "the shape of grad");
  }
  check::shape(name, "grad_scale", grad_scale, {grad.shape[0], grad.shape[1]}, "the shape of grad");
  check_coordinates(name, grad.shape[0], grad.shape[1]);
}

inline void GumbelSoftmax::check() const {
  check::given(name, "logits", logits);
  check::shape(name, "y", y, {logits.shape[0], logits.shape[1]}, "the shape of logits");
  check::positive(name, "tau", static_cast<double>(tau));
  check_coordinates(name, logits.shape[0], logits.shape[1]);
}

inline void GumbelSoftmaxVjp::check() const {
  detail::relaxed_vjp(name, grad, y, logits, grad_logits);
  check::positive(name, "tau", static_cast<double>(tau));
  check_coordinates(name, grad.shape[0], grad.shape[1]);
}

inline void RelaxedBernoulli::check() const {
  check::given(name, "logits", logits);
  check::shape(name, "y", y, {logits.shape[0], logits.shape[1]}, "the shape of logits");
  check::positive(name, "tau", static_cast<double>(tau));
  check_coordinates(name, logits.shape[0], logits.shape[1]);
}

inline void RelaxedBernoulliVjp::check() const {
  detail::relaxed_vjp(name, grad, y, logits, grad_logits);
  check::positive(name, "tau", static_cast<double>(tau));
  check_coordinates(name, grad.shape[0], grad.shape[1]);
}

}  // namespace gencore::sample
