// Errors that only a kernel can find, because only it reads every element. Raised after the parallel part, on the caller.
#pragma once

#include "gencore/error.h"

namespace gencore::runtime {

// Names the first state that is neither 0 nor 1.
[[noreturn]] void reject_states(const char* op, const char* arg, const ConstStates& states);
// Names the first target outside [0, 1], NaN included.
[[noreturn]] void reject_targets(const char* op, const char* arg, const ConstStates& targets);
// Names the first p outside [0, 1], NaN included.
[[noreturn]] void reject_probability(const char* op, const char* arg, const Matrix<const float>& p);
// Names the first logit that is NaN or inf, or the first row that holds -inf only.
[[noreturn]] void reject_logits(const char* op, const char* arg, const Matrix<const float>& logits);
// Names the first element that is not finite.
[[noreturn]] void reject_not_finite(const char* op, const char* arg, const float* data, std::int64_t n);

// Weights that are finite, but whose sums are not.
[[noreturn]] void reject_overflow(const char* op, const char* arg);
// Arrays of parameters whose sums are not finite: names the first element that is not.
[[noreturn]] void reject_parameters(const char* op, const char* arg, const VectorList<const float>& params);
// Degrees by which this dimension is seen before it is drawn.
[[noreturn]] void reject_degrees(const char* op, const char* arg, std::int64_t dimension);
// Names the first element that makes the vector, if it is given, no permutation of 0, 1, ...
void check_permutation(const char* op, const char* arg, const Vector<const std::int64_t>& order);

}  // namespace gencore::runtime
