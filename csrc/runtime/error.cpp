#include <cmath>
#include <cstdio>
#include <vector>

#include "reject.h"

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

void list_count(const char* op, const char* arg, std::int64_t actual, const char* like_arg, std::int64_t expected) {
  if (actual == expected) return;
  fail(op, arg, "to hold " + std::to_string(expected) + " arrays, as many as " + like_arg, std::to_string(actual));
}

void list_size(const char* op, const char* arg, std::int64_t k, std::int64_t actual, const char* like_arg,
               std::int64_t expected) {
  if (actual == expected) return;
  const std::string at = std::string("[") + std::to_string(k) + "]", count = std::to_string(expected);
  fail(op, (arg + at).c_str(), "to hold " + count + " elements, as many as " + like_arg + at, std::to_string(actual));
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

void positive(const char* op, const char* arg, double value) {
  if (!std::isfinite(value) || value <= 0) fail(op, arg, "to be positive and finite", number_text(value));
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
      if (!std::isfinite(data[i]))
        fail(op, arg, "to be finite", number_text(data[i]) + " at element " + std::to_string(i));
    }
  }
}

}  // namespace gencore::check

namespace gencore::runtime {

// The first state that is not `allowed`, as text; throws std::logic_error where there is none.
template <class Allowed>
static std::string first_not(const ConstStates& states, const Allowed& allowed) {
  const std::int64_t n = states.shape[0] * states.shape[1];
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = states.type == StateType::u8 ? static_cast<const std::uint8_t*>(states.data)[i]
                                                      : static_cast<const float*>(states.data)[i];
    if (allowed(value)) continue;
    const std::int64_t at[2] = {i / states.shape[1], i % states.shape[1]};
    return check::number_text(value) + " at " + check::shape_text(at, 2);
  }
  throw std::logic_error("every state is allowed");
}

void reject_states(const char* op, const char* arg, const ConstStates& states) {
  check::fail(op, arg, "to hold 0 and 1 only", first_not(states, [](double x) { return x == 0 || x == 1; }));
}

void reject_targets(const char* op, const char* arg, const ConstStates& targets) {
  check::fail(op, arg, "to hold values from 0 to 1", first_not(targets, [](double x) { return x >= 0 && x <= 1; }));
}

static std::string element_text(const Matrix<const float>& m, std::int64_t i) {
  const std::int64_t at[2] = {i / m.shape[1], i % m.shape[1]};
  return check::number_text(static_cast<double>(m[i])) + " at " + check::shape_text(at, 2);
}

void reject_probability(const char* op, const char* arg, const Matrix<const float>& p) {
  for (std::int64_t i = 0; i < p.size(); ++i) {
    if (!(p[i] >= 0 && p[i] <= 1)) check::fail(op, arg, "to hold probabilities, from 0 to 1", element_text(p, i));
  }
  throw std::logic_error("reject_probability: every element is a probability");
}

void reject_logits(const char* op, const char* arg, const Matrix<const float>& logits) {
  for (std::int64_t r = 0; r < logits.shape[0]; ++r) {
    bool possible = false;
    for (std::int64_t k = 0; k < logits.shape[1]; ++k) {
      const float x = logits.row(r)[k];
      if (std::isfinite(x)) {
        possible = true;
      } else if (!std::isinf(x) || x > 0) {
        check::fail(op, arg, "to be finite or -inf", element_text(logits, r * logits.shape[1] + k));
      }
    }
    if (!possible)
      check::fail(op, arg, "to have a finite element in each row", "-inf throughout row " + std::to_string(r));
  }
  throw std::logic_error("reject_logits: every row is a distribution");
}

void reject_not_finite(const char* op, const char* arg, const float* data, std::int64_t n) {
  check::finite(op, arg, data, n);
  throw std::logic_error("reject_not_finite: every element is finite");
}

void reject_overflow(const char* op, const char* arg) {
  check::fail(op, arg, "to give finite logits", "weights whose sums overflow");
}

void reject_parameters(const char* op, const char* arg, const VectorList<const float>& params) {
  for (std::int64_t k = 0; k < params.count; ++k) {
    const std::string named = std::string(arg) + "[" + std::to_string(k) + "]";
    check::finite(op, named.c_str(), params[k].data, params[k].size());
  }
  reject_overflow(op, arg);
}

void reject_degrees(const char* op, const char* arg, std::int64_t dimension) {
  check::fail(op, arg, "to let no dimension see itself or a later one",
              "some that let dimension " + std::to_string(dimension) + " do so");
}

void check_permutation(const char* op, const char* arg, const Vector<const std::int64_t>& order) {
  if (!order.given()) return;
  const std::int64_t n = order.shape[0];
  std::vector<bool> seen(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const bool inside = order[i] >= 0 && order[i] < n;
    if (inside && !seen[static_cast<std::size_t>(order[i])]) {
      seen[static_cast<std::size_t>(order[i])] = true;
      continue;
    }
    check::fail(op, arg, "to hold each of 0 to " + std::to_string(n - 1) + " once",
                std::to_string(order[i]) + (inside ? " again" : "") + " at element " + std::to_string(i));
  }
}

}  // namespace gencore::runtime
