// The mask of a layer by degrees. With inputs and units each by ascending degree, a unit sees a stretch of inputs from the
// first one on, and later units no fewer: the mask is a staircase, and what lies under it is left out.
#pragma once

#include "../runtime/scratch.h"
#include "gencore/masked_linear.h"
#include "parallel.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {

using runtime::Scratch;

// Places by ascending degree; equal ones as they lie.
class ByDegree {
 public:
  static std::size_t bytes(std::int64_t n) { return 16 * static_cast<std::size_t>(n) + 128; }
  ByDegree(Scratch& scratch, const Vector<const std::int64_t>& degree)
      : n_(degree.shape[0]), place_(scratch.carve<std::int64_t>(static_cast<std::size_t>(n_))) {
    auto* other = scratch.carve<std::int64_t>(static_cast<std::size_t>(n_));
    for (std::int64_t i = 0; i < n_; ++i) {
      place_[i] = i;
      in_order_ = in_order_ && (i == 0 || degree[i - 1] <= degree[i]);
    }
    for (std::int64_t width = 1; !in_order_ && width < n_; width *= 2) {
      for (std::int64_t begin = 0; begin < n_; begin += 2 * width) {
        const std::int64_t middle = min_of(begin + width, n_), end = min_of(begin + 2 * width, n_);
        std::int64_t a = begin, b = middle;
        for (std::int64_t i = begin; i < end; ++i) {
          const bool first = b == end || (a < middle && degree[place_[a]] <= degree[place_[b]]);
          other[i] = first ? place_[a++] : place_[b++];
        }
      }
      std::int64_t* merged = other;
      other = place_;
      place_ = merged;
    }
  }
  GENCORE_INLINE std::int64_t operator[](std::int64_t i) const { return place_[i]; }
  GENCORE_INLINE std::int64_t size() const { return n_; }
  // Whether they lie in this order.
  GENCORE_INLINE bool in_order() const { return in_order_; }

 private:
  std::int64_t n_;
  std::int64_t* place_;
  bool in_order_ = true;
};

struct Staircase {
  ByDegree in, out;
  std::int64_t* seen;     // by unit: it sees the inputs before this one
  std::int64_t* seen_by;  // by input: it is seen by this unit and those behind it

  static std::size_t bytes(const autoregressive::Degrees& op) {
    const std::int64_t k = op.in_degree.shape[0], n = op.out_degree.shape[0];
    return ByDegree::bytes(k) + ByDegree::bytes(n) + 8 * static_cast<std::size_t>(k + n) + 128;
  }
  Staircase(Scratch& scratch, const autoregressive::Degrees& op)
      : in(scratch, op.in_degree),
        out(scratch, op.out_degree),
        seen(scratch.carve<std::int64_t>(static_cast<std::size_t>(out.size()))),
        seen_by(scratch.carve<std::int64_t>(static_cast<std::size_t>(in.size()))) {
    std::int64_t i = 0;
    for (std::int64_t j = 0; j < out.size(); ++j) {
      const std::int64_t degree = op.out_degree[out[j]];
      const auto sees = [&](std::int64_t d) { return op.strict ? degree > d : degree >= d; };
      for (; i < in.size() && sees(op.in_degree[in[i]]); ++i) seen_by[i] = j;
      seen[j] = i;
    }
    for (; i < in.size(); ++i) seen_by[i] = out.size();
  }
};

// The rows of a matrix (rows, places) with their elements by ascending degree: themselves, or a copy.
template <class T>
const T* by_degree(Scratch& scratch, const ByDegree& order, const T* data, std::int64_t rows) {
  if (order.in_order()) return data;
  const std::int64_t n = order.size();
  T* copy = scratch.carve<T>(static_cast<std::size_t>(rows * n));
  parallel_for(ceil_div(rows, 16), [&](std::int64_t task) {
    for (std::int64_t r = 16 * task; r < min_of(rows, 16 * task + 16); ++r) {
      for (std::int64_t i = 0; i < n; ++i) copy[r * n + i] = data[r * n + order[i]];
    }
  });
  return copy;
}
inline std::size_t by_degree_bytes(const ByDegree& order, std::int64_t rows, std::size_t size) {
  return order.in_order() ? 0 : size * static_cast<std::size_t>(rows * order.size()) + 64;
}

// Back: the elements of each row where they belong.
inline void to_places(const ByDegree& order, const float* sorted, std::int64_t rows, float* out) {
  const std::int64_t n = order.size();
  parallel_for(ceil_div(rows, 16), [&](std::int64_t task) {
    for (std::int64_t r = 16 * task; r < min_of(rows, 16 * task + 16); ++r) {
      for (std::int64_t i = 0; i < n; ++i) out[r * n + order[i]] = sorted[r * n + i];
    }
  });
}

}  // namespace gencore::GENCORE_LEVEL
