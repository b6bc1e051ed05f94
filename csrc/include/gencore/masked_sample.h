// Samples of stacks of masked layers (masked_linear.h), each activation computed once.
#pragma once

#include "gencore/masked_linear.h"

#define GENCORE_MASKED_SAMPLE_OPS(X) X(MaskedSample)

namespace gencore::autoregressive {

// Draws dimension after dimension by ascending degree: x_d = 1 where logit_d > noise_d, and given_d where mask is 1. With
// logistic noise times a temperature that is a draw of logistic(logit_d / temperature).
//
// degrees are those of the dimensions (D,) and of each hidden layer; weights and biases those of the layers, flat, the last
// of them strict and back to the dimensions; direct (D, D), optional and strict, adds x direct to the logits. Sums are the
// chains of MaskedLinear, so the bits of the logits are those of a forward pass. Extra memory: the weights, packed, and 256
// bytes a thread for each dimension and unit.
struct MaskedSample : OpBase {
  static constexpr const char* name = "autoregressive.masked_sample";
  VectorList<const std::int64_t> degrees{};
  VectorList<const float> weights{}, biases{};
  Matrix<const float> direct{};
  dense::Activation activation = dense::Activation::identity;  // of hidden layers
  Matrix<const float> noise{};                                 // (n, D)
  Matrix<const std::uint8_t> given{}, mask{};                  // (1, D) or (n, D), together or not at all
  Matrix<std::uint8_t> out{};                                  // (n, D)

  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("degrees", &MaskedSample::degrees);
    f("weights", &MaskedSample::weights);
    f("biases", &MaskedSample::biases);
    f("direct", &MaskedSample::direct);
    f("activation", &MaskedSample::activation);
    f("noise", &MaskedSample::noise);
    f("given", &MaskedSample::given);
    f("mask", &MaskedSample::mask);
    f("out", &MaskedSample::out);
  }
};

GENCORE_API void run(const MaskedSample& op);

inline void MaskedSample::check() const {
  check::given(name, "degrees", degrees);
  check::given(name, "weights", weights);
  check::given(name, "biases", biases);
  check::at_least(name, "the length of degrees", degrees.count, 1);
  const auto as_many = [&](const char* arg, std::int64_t received) {
    if (received == degrees.count) return;
    check::fail(name, arg, "to hold " + std::to_string(degrees.count) + " arrays, as many as degrees",
                std::to_string(received));
  };
  as_many("weights", weights.count);
  as_many("biases", biases.count);
  const std::int64_t dims = degrees[0].shape[0];
  for (std::int64_t l = 0; l < weights.count; ++l) {
    const std::int64_t k = degrees[l].shape[0], n = l + 1 < degrees.count ? degrees[l + 1].shape[0] : dims;
    const auto sized = [&](const char* arg, std::int64_t received, std::int64_t expected) {
      if (received == expected) return;
      check::fail(name, (arg + ("[" + std::to_string(l)) + "]").c_str(),
                  "to hold " + std::to_string(expected) + " numbers, by the sizes of degrees",
                  std::to_string(received));
    };
    sized("weights", weights[l].shape[0], k * n);
    sized("biases", biases[l].shape[0], n);
  }
  if (direct.given()) check::shape(name, "direct", direct, {dims, dims}, "the first of degrees");
  dense::detail::activation(name, activation);
  check::given(name, "out", out);
  check::shape(name, "out", out, {out.shape[0], dims}, "the first of degrees");
  check::shape(name, "noise", noise, {out.shape[0], dims}, "the shape of out");
  if (!mask.given() && !given.given()) return;
  check::given(name, "mask", mask);
  check::given(name, "given", given);
  check::shape(name, "mask", mask, {mask.shape[0] == 1 ? 1 : out.shape[0], dims}, "the shape of out, or of one row");
  check::shape(name, "given", given, {given.shape[0] == 1 ? 1 : out.shape[0], dims}, "the shape of out, or of one row");
  check::apart(name, "out", out, "given", given);
  check::apart(name, "out", out, "mask", mask);
}

}  // namespace gencore::autoregressive
