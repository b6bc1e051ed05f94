// Fused parameter updates.
#pragma once

#include "gencore/op.h"

#define GENCORE_OPTIM_OPS(X) X(Sgd)

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

}  // namespace gencore::optim
