#include "reject.h"

#include <cmath>
#include <cstdio>

namespace gencore::check {

std::string number_text(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", x);
  return text;
}

void fail(const char* op, const char* arg, const std::string& expected, const std::string& received) {
  throw Error(std::string(op) + ": expected " + arg + " " + expected + ", received " + received);
}

std::string shape_text(const std::int64_t* shape, int rank) {
  std::string text = "(";
  for (int i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (rank == 1 ? ",)" : ")");
}

void shape(const char* op, const char* arg, const std::int64_t* actual, int rank,
           std::initializer_list<std::int64_t> expected, const char* because) {
  if (actual[0] < 0) fail(op, arg, "to be given", "nothing");
  bool same = true;
  for (int i = 0; i < rank; ++i) same = same && actual[i] == expected.begin()[i];
  if (!same) {
    fail(op, arg, "of shape " + shape_text(expected.begin(), rank) + ", " + because, shape_text(actual, rank));
  }
}

void at_least(const char* op, const char* arg, std::int64_t value, std::int64_t least) {
  if (value < least) fail(op, arg, "to be at least " + std::to_string(least), std::to_string(value));
}

void in_range(const char* op, const char* arg, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most) {
    fail(op, arg, "from " + std::to_string(least) + " to " + std::to_string(most), std::to_string(value));
  }
}

void finite(const char* op, const char* arg, double value) {
  if (!std::isfinite(value)) fail(op, arg, "to be finite", number_text(value));
}

void finite(const char* op, const char* arg, const float* data, std::int64_t n) {
  // x - x is 0 for a finite x and NaN otherwise; the sum is tested once a stretch, so that the check costs a read.
  constexpr std::int64_t stretch = 4096;
  for (std::int64_t begin = 0; begin < n; begin += stretch) {
    const std::int64_t end = begin + stretch < n ? begin + stretch : n;
    float sums[16] = {};
    std::int64_t i = begin;
    for (; i + 16 <= end; i += 16)
      for (int j = 0; j < 16; ++j) sums[j] += data[i + j] - data[i + j];
    for (; i < end; ++i) sums[0] += data[i] - data[i];
    float sum = 0;
    for (float s : sums) sum += s;
    if (sum == 0) continue;
    for (i = begin; i < end; ++i) {
      if (!std::isfinite(data[i])) fail(op, arg, "to be finite", number_text(data[i]) + " at element " + std::to_string(i));
    }
  }
}

}  // namespace gencore::check

namespace gencore::runtime {

void reject_states(const char* op, const char* arg, const ConstStates& states) {
  const std::int64_t n = states.shape[0] * states.shape[1];
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = states.type == StateType::u8 ? static_cast<const std::uint8_t*>(states.data)[i]
                                                      : static_cast<const float*>(states.data)[i];
    if (value == 0 || value == 1) continue;
    const std::int64_t at[2] = {i / states.shape[1], i % states.shape[1]};
    check::fail(op, arg, "to hold 0 and 1 only", check::number_text(value) + " at " + check::shape_text(at, 2));
  }
  throw std::logic_error("reject_states: every state is binary");
}

void reject_not_finite(const char* op, const char* arg, const float* data, std::int64_t n) {
  check::finite(op, arg, data, n);
  throw std::logic_error("reject_not_finite: every element is finite");
}

}  // namespace gencore::runtime
