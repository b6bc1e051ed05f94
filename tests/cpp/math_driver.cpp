// How far csrc/cpu/math.h is from the truth, for one ISA level (GENCORE_LEVEL, and its flags): tests/test_math.py.
//
// math_driver STRIDE   sweeps every STRIDE-th float32 bit pattern and prints, for each function: its name, the largest
//                      error in units in the last place, and the input that has it;
// math_driver values   prints each function at the ends: name, input, output.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "../../csrc/cpu/math.h"

namespace {

namespace level = gencore::GENCORE_LEVEL;
using level::F;
using level::lanes;

double pi() { return std::acos(-1.0); }

// cos and sin of 2 pi t: the quarter turns are taken off exactly.
double turned(double t, int ahead) {
  const double quarter = std::nearbyint(4 * t), angle = 2 * pi() * (t - quarter / 4);
  switch ((static_cast<int>(quarter) + ahead) % 4) {
    case 0: return std::cos(angle);
    case 1: return -std::sin(angle);
    case 2: return -std::cos(angle);
    default: return std::sin(angle);
  }
}
double cos_turn(double t) { return turned(t, 0); }
double sin_turn(double t) { return turned(t, 3); }

double softplus(double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); }
double logistic(double x) { return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

F logistic_from_87(F x) {
  F v[1] = {x};
  level::logistic_from_87_each(v);
  return v[0];
}

F cosine(F t) {
  F c, s;
  level::cos_sin_turn(t, c, s);
  return c;
}
F sine(F t) {
  F c, s;
  level::cos_sin_turn(t, c, s);
  return s;
}

struct Function {
  const char* name;
  F (*ours)(F);
  double (*truth)(double);
  float least, most;  // the range that its comment in math.h speaks of
};

// Beyond this e^-|x| is 0, by the comment on exp_minus_abs.
constexpr float tail_end = 87.68f;

const Function functions[] = {
    {"exp", [](F x) { return level::exp(x); }, [](double x) { return std::exp(x); }, -INFINITY, INFINITY},
    {"exp_minus_abs", [](F x) { return level::exp_minus_abs(x); }, [](double x) { return std::exp(-std::fabs(x)); },
     -tail_end, tail_end},
    {"one_minus_exp_minus", [](F x) { return level::one_minus_exp_minus(x); }, [](double x) { return -std::expm1(-x); },
     0, INFINITY},
    {"log", [](F x) { return level::log(x); }, [](double x) { return std::log(x); }, 0, INFINITY},
    {"logistic", [](F x) { return level::logistic(x); }, logistic, -tail_end, INFINITY},
    {"logistic_from_87", logistic_from_87, logistic, -87, INFINITY},
    {"log1p_unit", [](F x) { return level::log1p_unit(x); }, [](double x) { return std::log1p(x); }, 0, 1},
    {"softplus", [](F x) { return level::softplus(x); }, softplus, -tail_end, INFINITY},
    {"tanh", [](F x) { return level::tanh(x); }, [](double x) { return std::tanh(x); }, -INFINITY, INFINITY},
    {"cos_turn", cosine, cos_turn, 0, 1},
    {"sin_turn", sine, sin_turn, 0, 1},
};

// |actual - truth| in units of the spacing of float32 at the truth.
double error_in_ulp(float actual, double truth) {
  if (truth == static_cast<double>(actual)) return 0;
  if (std::isinf(actual)) return std::fabs(truth) >= 0x1p128 - 0x1p103 ? 0 : INFINITY;  // what rounds to inf
  int exponent = 0;
  std::frexp(truth, &exponent);
  const double spacing = std::ldexp(1.0, exponent - 24 > -149 ? exponent - 24 : -149);
  return std::fabs(static_cast<double>(actual) - truth) / spacing;
}

void sweep(const Function& f, std::uint32_t stride) {
  double worst = 0;
  float at = 0;
  std::uint64_t next = 0;
  while (next < std::uint64_t{1} << 32) {
    float x[lanes], y[lanes];
    int n = 0;
    for (; n < lanes && next < std::uint64_t{1} << 32; next += stride) {
      const auto bits = static_cast<std::uint32_t>(next);
      std::memcpy(&x[n], &bits, 4);
      if (x[n] >= f.least && x[n] <= f.most) ++n;
    }
    for (int i = n; i < lanes; ++i) x[i] = f.least;
    level::store(y, f.ours(level::load(x)));
    for (int i = 0; i < n; ++i) {
      const double error = error_in_ulp(y[i], f.truth(static_cast<double>(x[i])));
      if (error <= worst) continue;
      worst = error;
      at = x[i];
    }
  }
  std::printf("%s %.4f %.9g\n", f.name, worst, static_cast<double>(at));
}

void print_values(const Function& f) {
  const float inputs[] = {-INFINITY, -1000.0f, -0.0f, 0.0f,    0x1p-149f, 0.25f,
                          0.5f,      0.75f,    1.0f,  1000.0f, INFINITY,  NAN};
  for (const float x : inputs) {
    float y[lanes];
    level::store(y, f.ours(level::splat(x)));
    std::printf("%s %.9g %.9g\n", f.name, static_cast<double>(x), static_cast<double>(y[lanes - 1]));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint32_t stride = argc == 2 ? static_cast<std::uint32_t>(std::strtoul(argv[1], nullptr, 10)) : 0;
  for (const Function& f : functions) {
    if (stride > 0) {
      sweep(f, stride);
    } else {
      print_values(f);
    }
  }
}
