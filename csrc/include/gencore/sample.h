// Random variates into arrays, addressed by coordinates: out[row, unit] depends on (key, step, first_row + row, unit) only.
#pragma once

#include "gencore/sample_coordinates.h"
#include "gencore/sample_reparam.h"

#define GENCORE_SAMPLE_OPS(X) \
  X(Uniform) X(Normal) X(Exponential) X(Bernoulli) X(BernoulliBits) X(Categorical) GENCORE_SAMPLE_REPARAM_OPS(X)

namespace gencore::sample {

// ((word >> 9) + 1/2) 2^-23: in (0, 1), never 0 or 1.
struct Uniform : Coordinates {
  static constexpr const char* name = "sample.uniform";
  Matrix<float> out{};
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("out", &Uniform::out);
    coordinate_fields<Uniform>(f);
  }
};

// Standard normal by Box-Muller on pairs of words.
struct Normal : Coordinates {
  static constexpr const char* name = "sample.normal";
  Matrix<float> out{};
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("out", &Normal::out);
    coordinate_fields<Normal>(f);
  }
};

// -log(uniform), mean 1.
struct Exponential : Coordinates {
  static constexpr const char* name = "sample.exponential";
  Matrix<float> out{};
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("out", &Exponential::out);
    coordinate_fields<Exponential>(f);
  }
};

// 1 with probability p, resolved to 2^-32.
struct Bernoulli : Coordinates {
  static constexpr const char* name = "sample.bernoulli";
  Matrix<const float> p{};
  Matrix<std::uint8_t> out{};
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("p", &Bernoulli::p);
    f("out", &Bernoulli::out);
    coordinate_fields<Bernoulli>(f);
  }
};

// The same draws as bits, in the layout of packed states: unit u is bit u % 64 of word u / 64 of its row, and the bits
// beyond the last unit are 0. p may be one row for all rows of out.
struct BernoulliBits : Coordinates {
  static constexpr const char* name = "sample.bernoulli_bits";
  Matrix<const float> p{};      // (n, units) or (1, units)
  Matrix<std::uint64_t> out{};  // (n, ceil(units / 64))
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("p", &BernoulliBits::p);
    f("out", &BernoulliBits::out);
    coordinate_fields<BernoulliBits>(f);
  }
};

// out[row] = k with probability softmax(logits[row])_k, by inversion of one uniform a row.
struct Categorical : Coordinates {
  static constexpr const char* name = "sample.categorical";
  Matrix<const float> logits{};
  Vector<std::int64_t> out{};
  void check() const;
  template <class F>
  static void fields(F&& f) {
    f("logits", &Categorical::logits);
    f("out", &Categorical::out);
    coordinate_fields<Categorical>(f);
  }
};

GENCORE_API void run(const Uniform& op);
GENCORE_API void run(const Normal& op);
GENCORE_API void run(const Exponential& op);
GENCORE_API void run(const Bernoulli& op);
GENCORE_API void run(const BernoulliBits& op);
GENCORE_API void run(const Categorical& op);

inline void Uniform::check() const {
  check::given(name, "out", out);
  check_coordinates(name, out.shape[0], out.shape[1]);
}

inline void Normal::check() const {
  check::given(name, "out", out);
  check_coordinates(name, out.shape[0], out.shape[1]);
}

inline void Exponential::check() const {
  check::given(name, "out", out);
  check_coordinates(name, out.shape[0], out.shape[1]);
}

inline void Bernoulli::check() const {
  check::given(name, "p", p);
  check::shape(name, "out", out, {p.shape[0], p.shape[1]}, "the shape of p");
  check_coordinates(name, p.shape[0]);
}

inline void BernoulliBits::check() const {
  check::given(name, "p", p);
  check::given(name, "out", out);
  const std::int64_t rows = p.shape[0] == 1 ? out.shape[0] : p.shape[0];
  check::shape(name, "out", out, {rows, (p.shape[1] + 63) / 64}, "the rows of p and a word for each 64 units");
  check_coordinates(name, rows);
}

inline void Categorical::check() const {
  check::given(name, "logits", logits);
  if (logits.shape[0] > 0) check::at_least(name, "the number of categories, logits' columns,", logits.shape[1], 1);
  check::shape(name, "out", out, {logits.shape[0]}, "the rows of logits");
  check_coordinates(name, logits.shape[0]);
}

}  // namespace gencore::sample
