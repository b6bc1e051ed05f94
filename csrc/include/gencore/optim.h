// Fused parameter updates: of one array uphill (Sgd), and of all parameters of a model at once downhill, in one pass
// over memory with the arithmetic of torch.optim.
#pragma once

#include "gencore/op.h"

// clang-format off
#define GENCORE_OPTIM_OPS(X) \
  X(Sgd) X(SgdStep) X(RmspropStep) X(AdagradStep) X(AdadeltaStep) X(AdamStep) X(EmaUpdate) X(SquareSum) X(Scale)
// clang-format on

namespace gencore::optim {

// velocity <- momentum velocity + lr (grad - weight_decay param);  param <- param + velocity.
// grad points uphill (the gradient of a log-likelihood). Without velocity, momentum must be 0.
struct Sgd : OpBase {
  static constexpr const char* name = "optim.sgd";
  Vector<float> param{};
  Vector<const float> grad{};
  Vector<float> velocity{};  // optional
  float lr = 0, momentum = 0, weight_decay = 0;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("param", &Sgd::param);
    f("grad", &Sgd::grad);
    f("velocity", &Sgd::velocity);
    f("lr", &Sgd::lr);
    f("momentum", &Sgd::momentum);
    f("weight_decay", &Sgd::weight_decay);
  }
};

GENCORE_API void run(const Sgd& op);

inline void Sgd::check() const {
  check::given(name, "param", param);
  check::shape(name, "grad", grad, {param.shape[0]}, "the shape of param");
  if (velocity.given()) {
    check::shape(name, "velocity", velocity, {param.shape[0]}, "the shape of param");
  } else if (momentum != 0) {
    check::fail(name, "velocity, which a momentum other than 0 needs,", "to be given", "nothing");
  }
  check::finite(name, "lr", lr);
  check::finite(name, "momentum", momentum);
  check::finite(name, "weight_decay", weight_decay);
}

// --- all parameters at once ------------------------------------------------------------------------------------------
// Lists hold arrays of like sizes at like places; no two of them may share memory. Numbers are float64, because
// 1 - beta2 and the corrections of Adam need it; what multiplies an array is rounded to float32 once. `maximize` turns
// g around.

struct StepBase : OpBase {
  VectorList<float> params{};
  VectorList<const float> grads{};
  double lr = 0, weight_decay = 0;
  bool maximize = false;

  void check_step(const char* name) const;
  template <class Op, class F>
  static void step_fields(F&& f) {
    f("params", &Op::params);
    f("grads", &Op::grads);
    f("lr", &Op::lr);
    f("weight_decay", &Op::weight_decay);
    f("maximize", &Op::maximize);
  }
};

// g = grad + weight_decay param;  buffer <- momentum buffer + (1 - dampening) g;
// param <- param - lr (nesterov ? g + momentum buffer : buffer). Without buffers, param <- param - lr g.
// torch's first step takes buffer = g: give zeros and dampening 0.
struct SgdStep : StepBase {
  static constexpr const char* name = "optim.sgd_step";
  VectorList<float> momentum_buffers{};  // optional; needed where momentum is not 0
  double momentum = 0, dampening = 0;
  bool nesterov = false;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    step_fields<SgdStep>(f);
    f("momentum_buffers", &SgdStep::momentum_buffers);
    f("momentum", &SgdStep::momentum);
    f("dampening", &SgdStep::dampening);
    f("nesterov", &SgdStep::nesterov);
  }
};

// g = grad + weight_decay param;  s <- alpha s + (1 - alpha) g^2;  m <- alpha m + (1 - alpha) g (centred);
// u = g / (sqrt(s - m^2) + eps);  buffer <- momentum buffer + u;  param <- param - lr buffer.
// Without grad_avgs m is 0; without buffers param <- param - lr u. s - m^2 is held at 0 where rounding takes it below.
struct RmspropStep : StepBase {
  static constexpr const char* name = "optim.rmsprop_step";
  VectorList<float> square_avgs{};       // s
  VectorList<float> grad_avgs{};         // m, optional
  VectorList<float> momentum_buffers{};  // optional; needed where momentum is not 0
  double alpha = 0.99, eps = 1e-8, momentum = 0;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    step_fields<RmspropStep>(f);
    f("square_avgs", &RmspropStep::square_avgs);
    f("grad_avgs", &RmspropStep::grad_avgs);
    f("momentum_buffers", &RmspropStep::momentum_buffers);
    f("alpha", &RmspropStep::alpha);
    f("eps", &RmspropStep::eps);
    f("momentum", &RmspropStep::momentum);
  }
};

// g = grad + weight_decay param;  s <- s + g^2;  param <- param - lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps).
struct AdagradStep : StepBase {
  static constexpr const char* name = "optim.adagrad_step";
  VectorList<float> state_sums{};  // s
  std::int64_t step = 1;           // the number of this step, from 1
  double lr_decay = 0, eps = 1e-10;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    step_fields<AdagradStep>(f);
    f("state_sums", &AdagradStep::state_sums);
    f("step", &AdagradStep::step);
    f("lr_decay", &AdagradStep::lr_decay);
    f("eps", &AdagradStep::eps);
  }
};

// g = grad + weight_decay param;  s <- rho s + (1 - rho) g^2;  d = sqrt(a + eps) / sqrt(s + eps) g;
// a <- rho a + (1 - rho) d^2;  param <- param - lr d.
struct AdadeltaStep : StepBase {
  static constexpr const char* name = "optim.adadelta_step";
  VectorList<float> square_avgs{};  // s
  VectorList<float> acc_deltas{};   // a
  double rho = 0.9, eps = 1e-6;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    step_fields<AdadeltaStep>(f);
    f("square_avgs", &AdadeltaStep::square_avgs);
    f("acc_deltas", &AdadeltaStep::acc_deltas);
    f("rho", &AdadeltaStep::rho);
    f("eps", &AdadeltaStep::eps);
  }
};

// g = grad + weight_decay param (Adam), or param <- (1 - lr weight_decay) param (AdamW: decoupled);
// m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
// param <- param - lr / (1 - beta1^step) m / (sqrt(v / (1 - beta2^step)) + eps).
// With max_exp_avg_sqs (AMSGrad) the largest v so far stands in for v there.
struct AdamStep : StepBase {
  static constexpr const char* name = "optim.adam_step";
  VectorList<float> exp_avgs{};         // m
  VectorList<float> exp_avg_sqs{};      // v
  VectorList<float> max_exp_avg_sqs{};  // optional
  std::int64_t step = 1;                // the number of this step, from 1
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  bool decoupled = false;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    step_fields<AdamStep>(f);
    f("exp_avgs", &AdamStep::exp_avgs);
    f("exp_avg_sqs", &AdamStep::exp_avg_sqs);
    f("max_exp_avg_sqs", &AdamStep::max_exp_avg_sqs);
    f("step", &AdamStep::step);
    f("beta1", &AdamStep::beta1);
    f("beta2", &AdamStep::beta2);
    f("eps", &AdamStep::eps);
    f("decoupled", &AdamStep::decoupled);
  }
};

// average <- decay average + (1 - decay) param.
struct EmaUpdate : OpBase {
  static constexpr const char* name = "optim.ema_update";
  VectorList<float> averages{};
  VectorList<const float> params{};
  double decay = 0;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("averages", &EmaUpdate::averages);
    f("params", &EmaUpdate::params);
    f("decay", &EmaUpdate::decay);
  }
};

// out[0] = the sum of squares of all elements, in float64; the same bits on every ISA level, too.
// Memory: 8 bytes for each 65,536 elements.
struct SquareSum : OpBase {
  static constexpr const char* name = "optim.square_sum";
  VectorList<const float> arrays{};
  Vector<double> out{};

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("arrays", &SquareSum::arrays);
    f("out", &SquareSum::out);
  }
};

// Every element times factor, which may be any number: infinity or NaN show in the arrays.
struct Scale : OpBase {
  static constexpr const char* name = "optim.scale";
  VectorList<float> arrays{};
  double factor = 1;

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("arrays", &Scale::arrays);
    f("factor", &Scale::factor);
  }
};

GENCORE_API void run(const SgdStep& op);
GENCORE_API void run(const RmspropStep& op);
GENCORE_API void run(const AdagradStep& op);
GENCORE_API void run(const AdadeltaStep& op);
GENCORE_API void run(const AdamStep& op);
GENCORE_API void run(const EmaUpdate& op);
GENCORE_API void run(const SquareSum& op);
GENCORE_API void run(const Scale& op);

namespace detail {

// State that the op needs only where a number is not 0.
inline void momentum_buffers(const char* op, const StepBase& step, const VectorList<float>& buffers, double momentum) {
  if (buffers.given()) {
    check::like(op, "momentum_buffers", buffers, "params", step.params);
  } else if (momentum != 0) {
    check::fail(op, "momentum_buffers, which a momentum other than 0 needs,", "to be given", "nothing");
  }
  check::finite(op, "momentum", momentum);
}

}  // namespace detail

inline void StepBase::check_step(const char* name) const {
  check::given(name, "params", params);
  check::like(name, "grads", grads, "params", params);
  check::finite(name, "lr", lr);
  check::finite(name, "weight_decay", weight_decay);
}

inline void SgdStep::check() const {
  check_step(name);
  detail::momentum_buffers(name, *this, momentum_buffers, momentum);
  check::finite(name, "dampening", dampening);
}

inline void RmspropStep::check() const {
  check_step(name);
  check::like(name, "square_avgs", square_avgs, "params", params);
  if (grad_avgs.given()) check::like(name, "grad_avgs", grad_avgs, "params", params);
  detail::momentum_buffers(name, *this, momentum_buffers, momentum);
  check::finite(name, "alpha", alpha);
  check::finite(name, "eps", eps);
}

inline void AdagradStep::check() const {
  check_step(name);
  check::like(name, "state_sums", state_sums, "params", params);
  check::at_least(name, "step", step, 1);
  check::finite(name, "lr_decay", lr_decay);
  check::finite(name, "eps", eps);
}

inline void AdadeltaStep::check() const {
  check_step(name);
  check::like(name, "square_avgs", square_avgs, "params", params);
  check::like(name, "acc_deltas", acc_deltas, "params", params);
  check::finite(name, "rho", rho);
  check::finite(name, "eps", eps);
}

inline void AdamStep::check() const {
  check_step(name);
  check::like(name, "exp_avgs", exp_avgs, "params", params);
  check::like(name, "exp_avg_sqs", exp_avg_sqs, "params", params);
  if (max_exp_avg_sqs.given()) check::like(name, "max_exp_avg_sqs", max_exp_avg_sqs, "params", params);
  check::at_least(name, "step", step, 1);
  check::finite(name, "beta1", beta1);
  check::finite(name, "beta2", beta2);
  check::finite(name, "eps", eps);
}

inline void EmaUpdate::check() const {
  check::given(name, "averages", averages);
  check::like(name, "params", params, "averages", averages);
  check::finite(name, "decay", decay);
}

inline void SquareSum::check() const {
  check::given(name, "arrays", arrays);
  check::shape(name, "out", out, {1}, "one sum");
}

inline void Scale::check() const { check::given(name, "arrays", arrays); }

}  // namespace gencore::optim
