// Restricted Boltzmann machines with binary units: p(v, h) = exp(b.v + c.h + v'w h) / Z.
//
// w is (n_visible, n_hidden), b the visible bias, c the hidden bias, v (n, n_visible), h (n, n_hidden).
// A Gibbs step t draws h ~ p(h | v), then v ~ p(v | h); row r of the batch uses the random numbers of
// row first_row + r at step first_step + t, so chains can be split and continued without a trace.
#pragma once

#include "gencore/op.h"

// clang-format off
#define GENCORE_RBM_OPS(X)                                                  \
  X(GibbsChain)                                                             \
  X(HiddenMean) X(VisibleMean) X(HiddenSample) X(VisibleSample)             \
  X(FreeEnergy) X(CdGradient)                                               \
  X(LogPartitionExact) X(Ais)                                               \
  X(PseudoLogLikelihood) X(StochasticPseudoLogLikelihood)
// clang-format on

namespace gencore::rbm {

struct Parameters : OpBase {
  Matrix<const float> w{};
  Vector<const float> b{}, c{};

  template <class Op, class F>
  static void parameter_fields(F&& f) {
    f("w", &Op::w);
    f("b", &Op::b);
    f("c", &Op::c);
  }
  void check_parameters(const char* op) const;
};

// What products are made of. tf32 and bf16 round the weights, to 11 and 8 significant bits, once a call; states are exact
// and sums float32. On CUDA devices only.
enum class Precision : std::int32_t { float32 = 0, tf32 = 1, bf16 = 2 };

// v_out = v after `steps` Gibbs steps at inverse temperature beta (one for all, or one a row).
// Units where clamp is 1 keep their value. Extra memory: packed weights, 2 n_visible n_hidden floats (bf16: half of that),
// and packed states.
struct GibbsChain : Parameters {
  static constexpr const char* name = "rbm.gibbs_chain";
  ConstStates v{};
  States v_out{};  // may be v's own memory
  std::int64_t steps = 1;
  Key key{};
  Vector<const float> beta{};          // (1,) or (n,)
  Matrix<const std::uint8_t> clamp{};  // (1, n_visible) or (n, n_visible), optional
  std::int64_t first_step = 0, first_row = 0;
  Precision precision = Precision::float32;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<GibbsChain>(f);
    f("v", &GibbsChain::v);
    f("v_out", &GibbsChain::v_out);
    f("steps", &GibbsChain::steps);
    f("key", &GibbsChain::key);
    f("beta", &GibbsChain::beta);
    f("clamp", &GibbsChain::clamp);
    f("first_step", &GibbsChain::first_step);
    f("first_row", &GibbsChain::first_row);
    f("precision", &GibbsChain::precision);
  }
};

// One side of the machine given the other: the common form of the four ops that follow.
struct Layer {
  const char *op, *bias_name, *states_name;  // for errors
  Matrix<const float> w;
  Vector<const float> bias;  // of the side that is computed
  ConstStates states;        // the other side
  bool visible;              // the side that is computed
  float beta;
  bool readable;  // OpBase's
};

// out = logistic(beta (c + v w)).
struct HiddenMean : OpBase {
  static constexpr const char* name = "rbm.hidden_mean";
  Matrix<const float> w{};
  Vector<const float> c{};
  ConstStates v{};  // float32 states may be real
  Matrix<float> out{};
  float beta = 1;

  Layer layer() const;
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("w", &HiddenMean::w);
    f("c", &HiddenMean::c);
    f("v", &HiddenMean::v);
    f("out", &HiddenMean::out);
    f("beta", &HiddenMean::beta);
  }
};

// out = logistic(beta (b + h w')).
struct VisibleMean : OpBase {
  static constexpr const char* name = "rbm.visible_mean";
  Matrix<const float> w{};
  Vector<const float> b{};
  ConstStates h{};
  Matrix<float> out{};
  float beta = 1;

  Layer layer() const;
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("w", &VisibleMean::w);
    f("b", &VisibleMean::b);
    f("h", &VisibleMean::h);
    f("out", &VisibleMean::out);
    f("beta", &VisibleMean::beta);
  }
};

// Binary draws with the means of HiddenMean: those that GibbsChain makes at this step.
struct HiddenSample : OpBase {
  static constexpr const char* name = "rbm.hidden_sample";
  Matrix<const float> w{};
  Vector<const float> c{};
  ConstStates v{};
  States out{};
  float beta = 1;
  Key key{};
  std::int64_t step = 0, first_row = 0;

  Layer layer() const;
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("w", &HiddenSample::w);
    f("c", &HiddenSample::c);
    f("v", &HiddenSample::v);
    f("out", &HiddenSample::out);
    f("beta", &HiddenSample::beta);
    f("key", &HiddenSample::key);
    f("step", &HiddenSample::step);
    f("first_row", &HiddenSample::first_row);
  }
};

// The same with the means of VisibleMean.
struct VisibleSample : OpBase {
  static constexpr const char* name = "rbm.visible_sample";
  Matrix<const float> w{};
  Vector<const float> b{};
  ConstStates h{};
  States out{};
  float beta = 1;
  Key key{};
  std::int64_t step = 0, first_row = 0;

  Layer layer() const;
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("w", &VisibleSample::w);
    f("b", &VisibleSample::b);
    f("h", &VisibleSample::h);
    f("out", &VisibleSample::out);
    f("beta", &VisibleSample::beta);
    f("key", &VisibleSample::key);
    f("step", &VisibleSample::step);
    f("first_row", &VisibleSample::first_row);
  }
};

// out = -beta b.v - sum_j softplus(beta (c_j + v w_j)), float64. float32 states may be real.
struct FreeEnergy : Parameters {
  static constexpr const char* name = "rbm.free_energy";
  ConstStates v{};
  Vector<double> out{};
  float beta = 1;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<FreeEnergy>(f);
    f("v", &FreeEnergy::v);
    f("out", &FreeEnergy::out);
    f("beta", &FreeEnergy::beta);
  }
};

// Contrastive-divergence gradient of the mean log-likelihood, uphill. With E_d the mean over the n rows of v and E_m the
// mean over the m chains after k Gibbs steps, H the hidden means p(h = 1 | v), and offsets mu, lambda (0 if not given):
//   grad_w = E_d[(v - mu)(H - lambda)'] - E_m[(v - mu)(H - lambda)']
//   grad_b = E_d[v] - E_m[v] - grad_w lambda
//   grad_c = E_d[H] - E_m[H] - grad_w' mu
// chains not given: CD, the chains start at v (their first hidden states are drawn with H of the data). Given: PCD,
// they start there. chains_out holds the last states either way. float32 v may be real (CD included).
struct CdGradient : Parameters {
  static constexpr const char* name = "rbm.cd_gradient";
  ConstStates v{};
  Matrix<const std::uint8_t> chains{};  // (m, n_visible), optional
  Matrix<std::uint8_t> chains_out{};    // (m, n_visible); m = n for CD
  std::int64_t k = 1;
  Key key{};
  std::int64_t first_step = 0;
  Vector<const float> offset_v{}, offset_h{};  // mu (n_visible,), lambda (n_hidden,); both or neither
  Matrix<float> grad_w{};
  Vector<float> grad_b{}, grad_c{};
  Vector<float> mean_v{}, mean_h{};  // E_d[v], E_d[H]; optional

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<CdGradient>(f);
    f("v", &CdGradient::v);
    f("chains", &CdGradient::chains);
    f("chains_out", &CdGradient::chains_out);
    f("k", &CdGradient::k);
    f("key", &CdGradient::key);
    f("first_step", &CdGradient::first_step);
    f("offset_v", &CdGradient::offset_v);
    f("offset_h", &CdGradient::offset_h);
    f("grad_w", &CdGradient::grad_w);
    f("grad_b", &CdGradient::grad_b);
    f("grad_c", &CdGradient::grad_c);
    f("mean_v", &CdGradient::mean_v);
    f("mean_h", &CdGradient::mean_h);
  }
};

// out[0] = log Z by enumeration of the smaller side (at most 30 units): Gray code in float64 over its high bits, a table
// over the low ones. Work 2^small * large; extra memory 64 * large floats a thread.
struct LogPartitionExact : Parameters {
  static constexpr const char* name = "rbm.log_partition_exact";
  static constexpr std::int64_t max_units = 30;
  Vector<double> out{};

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<LogPartitionExact>(f);
    f("out", &LogPartitionExact::out);
  }
};

// Annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008) along
//   f_beta(v) = exp((1 - beta) b0.v + beta b.v) prod_j (1 + exp(beta (c_j + v w_j))),
// from the base-rate model b0 (beta = 0, all hidden units free) to the RBM (beta = 1). betas rising from 0 to 1: each run
// draws v from the base model, unless start is given. Falling from 1 to 0: start must hold (approximate) samples of the
// RBM, and -log_weights estimates the same ratio from above. log_weights[r] = sum_k log f_{k+1}(v_k) / f_k(v_k); so
//   log Z = n_hidden log 2 + sum_i softplus(b0_i) + log E[exp(log_weights)]  (rising).
struct Ais : Parameters {
  static constexpr const char* name = "rbm.ais";
  Vector<const double> betas{};
  Vector<const float> base_bias{};     // b0 (n_visible,)
  Matrix<const std::uint8_t> start{};  // (n_runs, n_visible), optional when rising
  Vector<double> log_weights{};        // (n_runs,)
  Matrix<std::uint8_t> v_out{};        // (n_runs, n_visible)
  Key key{};
  std::int64_t first_row = 0;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<Ais>(f);
    f("betas", &Ais::betas);
    f("base_bias", &Ais::base_bias);
    f("start", &Ais::start);
    f("log_weights", &Ais::log_weights);
    f("v_out", &Ais::v_out);
    f("key", &Ais::key);
    f("first_row", &Ais::first_row);
  }
};

// out = sum_i log p(v_i | v without i), float64. Work n * n_visible * n_hidden.
struct PseudoLogLikelihood : Parameters {
  static constexpr const char* name = "rbm.pseudo_log_likelihood";
  ConstStates v{};
  Vector<double> out{};

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<PseudoLogLikelihood>(f);
    f("v", &PseudoLogLikelihood::v);
    f("out", &PseudoLogLikelihood::out);
  }
};

// out = n_visible log p(v_i | v without i) for one i a row, uniform: an unbiased estimate of the above.
struct StochasticPseudoLogLikelihood : Parameters {
  static constexpr const char* name = "rbm.stochastic_pseudo_log_likelihood";
  ConstStates v{};
  Vector<double> out{};
  Key key{};
  std::int64_t step = 0, first_row = 0;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    parameter_fields<StochasticPseudoLogLikelihood>(f);
    f("v", &StochasticPseudoLogLikelihood::v);
    f("out", &StochasticPseudoLogLikelihood::out);
    f("key", &StochasticPseudoLogLikelihood::key);
    f("step", &StochasticPseudoLogLikelihood::step);
    f("first_row", &StochasticPseudoLogLikelihood::first_row);
  }
};

GENCORE_API void run(const GibbsChain& op);
GENCORE_API void run(const HiddenMean& op);
GENCORE_API void run(const VisibleMean& op);
GENCORE_API void run(const HiddenSample& op);
GENCORE_API void run(const VisibleSample& op);
GENCORE_API void run(const FreeEnergy& op);
GENCORE_API void run(const CdGradient& op);
GENCORE_API void run(const LogPartitionExact& op);
GENCORE_API void run(const Ais& op);
GENCORE_API void run(const PseudoLogLikelihood& op);
GENCORE_API void run(const StochasticPseudoLogLikelihood& op);

inline void Parameters::check_parameters(const char* op) const {
  check::given(op, "w", w);
  check::shape(op, "b", b, {w.shape[0]}, "the rows of w");
  check::shape(op, "c", c, {w.shape[1]}, "the columns of w");
  check::at_least(op, "w.shape[0], the number of visible units,", w.shape[0], 1);
  check::at_least(op, "w.shape[1], the number of hidden units,", w.shape[1], 1);
  if (!readable()) return;
  check::finite(op, "b", b.data, b.size());
  check::finite(op, "c", c.data, c.size());
}

namespace detail {
inline void states(const char* op, const char* arg, const ConstStates& s, std::int64_t units, const char* because) {
  check::given(op, arg, s);
  check::shape(op, arg, s, {s.shape[0], units}, because);
}
inline void draws(const char* op, std::int64_t rows, std::int64_t first_row, std::int64_t steps,
                  std::int64_t first_step, const char* step_name = "first_step") {
  check::in_range(op, "first_row", first_row, 0, std::int64_t{0xFFFFFFFF} - rows);
  check::in_range(op, step_name, first_step, 0, max_step - steps);
}
inline void layer(const Layer& l, const std::int64_t* out_shape) {
  check::given(l.op, "w", l.w);
  const char *given = l.visible ? "the columns of w" : "the rows of w",
             *computed = l.visible ? "the rows of w" : "the columns of w";
  const std::int64_t in = l.w.shape[l.visible ? 1 : 0], units = l.w.shape[l.visible ? 0 : 1];
  check::shape(l.op, l.bias_name, l.bias, {units}, computed);
  if (l.readable) check::finite(l.op, l.bias_name, l.bias.data, l.bias.size());
  states(l.op, l.states_name, l.states, in, given);
  check::shape(l.op, "out", out_shape, 2, {l.states.shape[0], units},
               l.visible ? "the rows of h and of w" : "the rows of v and the columns of w");
  check::finite(l.op, "beta", l.beta);
}
inline void precision(const char* op, Precision p, Device device) {
  check::in_range(op, "precision", static_cast<std::int64_t>(p), 0, 2);
  if (p != Precision::float32 && device.kind == DeviceKind::cpu) {
    check::fail(op, "precision", "to be float32 on the CPU", p == Precision::tf32 ? "tf32" : "bf16");
  }
}
}  // namespace detail

inline void GibbsChain::check() const {
  check_parameters(name);
  detail::states(name, "v", v, w.shape[0], "the rows of w");
  const std::int64_t n = v.shape[0];
  check::shape(name, "v_out", v_out, {n, w.shape[0]}, "the shape of v");
  check::at_least(name, "steps", steps, 0);
  check::given(name, "beta", beta);
  if (beta.shape[0] != 1) check::shape(name, "beta", beta, {n}, "one number, or one for each row of v");
  if (readable()) check::finite(name, "beta", beta.data, beta.size());
  if (clamp.given() && clamp.shape[0] != 1) {
    check::shape(name, "clamp", clamp, {n, w.shape[0]}, "one mask, or one for each row of v");
  } else if (clamp.given()) {
    check::shape(name, "clamp", clamp, {1, w.shape[0]}, "the rows of w");
  }
  detail::draws(name, n, first_row, steps, first_step);
  detail::precision(name, precision, device);
}

inline Layer HiddenMean::layer() const { return {name, "c", "v", w, c, v, false, beta, readable()}; }
inline Layer VisibleMean::layer() const { return {name, "b", "h", w, b, h, true, beta, readable()}; }
inline Layer HiddenSample::layer() const { return {name, "c", "v", w, c, v, false, beta, readable()}; }
inline Layer VisibleSample::layer() const { return {name, "b", "h", w, b, h, true, beta, readable()}; }

inline void HiddenMean::check() const { detail::layer(layer(), out.shape); }
inline void VisibleMean::check() const { detail::layer(layer(), out.shape); }
inline void HiddenSample::check() const {
  detail::layer(layer(), out.shape);
  detail::draws(name, v.shape[0], first_row, 1, step, "step");
}
inline void VisibleSample::check() const {
  detail::layer(layer(), out.shape);
  detail::draws(name, h.shape[0], first_row, 1, step, "step");
}

inline void FreeEnergy::check() const {
  check_parameters(name);
  detail::states(name, "v", v, w.shape[0], "the rows of w");
  check::shape(name, "out", out, {v.shape[0]}, "the rows of v");
  check::finite(name, "beta", beta);
}

inline void CdGradient::check() const {
  check_parameters(name);
  const std::int64_t n_visible = w.shape[0], n_hidden = w.shape[1];
  detail::states(name, "v", v, n_visible, "the rows of w");
  check::at_least(name, "v.shape[0], the batch,", v.shape[0], 1);
  std::int64_t m = v.shape[0];
  if (chains.given()) {
    m = chains.shape[0];
    check::at_least(name, "chains.shape[0]", m, 1);
    check::shape(name, "chains", chains, {m, n_visible}, "the rows of w");
  }
  check::shape(name, "chains_out", chains_out, {m, n_visible}, "the shape of the chains");
  check::at_least(name, "k", k, 1);
  if (offset_v.given() != offset_h.given()) {
    check::fail(name, offset_v.given() ? "offset_h" : "offset_v", "to be given beside the other offset", "nothing");
  }
  if (offset_v.given()) {
    check::shape(name, "offset_v", offset_v, {n_visible}, "the rows of w");
    check::shape(name, "offset_h", offset_h, {n_hidden}, "the columns of w");
  }
  check::shape(name, "grad_w", grad_w, {n_visible, n_hidden}, "the shape of w");
  check::shape(name, "grad_b", grad_b, {n_visible}, "the shape of b");
  check::shape(name, "grad_c", grad_c, {n_hidden}, "the shape of c");
  if (mean_v.given()) check::shape(name, "mean_v", mean_v, {n_visible}, "the rows of w");
  if (mean_h.given()) check::shape(name, "mean_h", mean_h, {n_hidden}, "the columns of w");
  detail::draws(name, m, 0, k, first_step);
}

inline void LogPartitionExact::check() const {
  check_parameters(name);
  const std::int64_t smaller = w.shape[0] < w.shape[1] ? w.shape[0] : w.shape[1];
  if (smaller > max_units) {
    check::fail(name, "w", "to have a side of at most 30 units to enumerate (use AIS for larger ones)",
                check::shape_text(w.shape, 2));
  }
  check::shape(name, "out", out, {1}, "a single number");
}

inline void Ais::check() const {
  check_parameters(name);
  check::given(name, "betas", betas);
  const std::int64_t n = betas.shape[0], n_visible = w.shape[0];
  check::at_least(name, "the length of betas", n, 2);
  // On a device nobody knows: falling betas are those that come with a start.
  const bool rising = readable() ? betas[0] < betas[n - 1] : !start.given();
  for (std::int64_t i = 1; readable() && i < n; ++i) {
    if (rising ? !(betas[i - 1] <= betas[i]) : !(betas[i - 1] >= betas[i])) {
      check::fail(name, "betas", "to rise or to fall throughout", "a turn at element " + std::to_string(i));
    }
  }
  if (readable() && !(betas[rising ? 0 : n - 1] == 0 && betas[rising ? n - 1 : 0] == 1)) {
    check::fail(name, "betas", "to lead from 0 to 1 or from 1 to 0",
                "from " + std::to_string(betas[0]) + " to " + std::to_string(betas[n - 1]));
  }
  check::shape(name, "base_bias", base_bias, {n_visible}, "the rows of w");
  if (readable()) check::finite(name, "base_bias", base_bias.data, base_bias.size());
  check::given(name, "log_weights", log_weights);
  const std::int64_t runs = log_weights.shape[0];
  if (start.given()) {
    check::shape(name, "start", start, {runs, n_visible}, "a state for each run");
  } else if (!rising) {
    check::fail(name, "start", "to be given: falling betas start from samples of the RBM", "nothing");
  }
  check::shape(name, "v_out", v_out, {runs, n_visible}, "a state for each run");
  detail::draws(name, runs, first_row, n, 0);
}

inline void PseudoLogLikelihood::check() const {
  check_parameters(name);
  detail::states(name, "v", v, w.shape[0], "the rows of w");
  check::shape(name, "out", out, {v.shape[0]}, "the rows of v");
}

inline void StochasticPseudoLogLikelihood::check() const {
  check_parameters(name);
  detail::states(name, "v", v, w.shape[0], "the rows of w");
  check::shape(name, "out", out, {v.shape[0]}, "the rows of v");
  detail::draws(name, v.shape[0], first_row, 1, step, "step");
}

}  // namespace gencore::rbm
