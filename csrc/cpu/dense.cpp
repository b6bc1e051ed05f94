// Dense linear algebra.
#include "gencore/dense.h"

#include <time.h>

#include "../runtime/table.h"
#include "gemm.h"
#include "math.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using dense::Activation;
using dense::MatMul;

// activation(sums + bias). Along a row of c the bias changes with the column; along a column of c, computed as a row of
// the transposed product, it does not.
template <class Function>
struct BiasThen {
  const float* bias;  // nullptr: none
  std::int64_t columns;
  bool along_row;
  Function activation;

  GENCORE_INLINE F operator()(F x, std::int64_t first) const {
    if (bias == nullptr) return activation(x);
    if (!along_row) return activation(x + *bias);
    const std::int64_t left = columns - first;
    return activation(x + (left >= lanes ? load(bias + first) : load_first(bias + first, static_cast<int>(left))));
  }
};

template <class Epilogue>
void multiply(const MatMul& op, const Epilogue& epilogue) {
  const std::int64_t m = op.out.shape[0], n = op.out.shape[1], k = op.a.shape[op.transpose_a ? 0 : 1];
  const std::int64_t lda = op.a.shape[1], ldb = op.b.shape[1];
  const std::int64_t a_row = op.transpose_a ? 1 : lda, a_column = op.transpose_a ? lda : 1;
  const std::int64_t b_row = op.transpose_b ? 1 : ldb, b_column = op.transpose_b ? ldb : 1;
  if (n == 1) {
    gemm(n, m, k, op.b.data, b_column, b_row, op.a.data, a_column, a_row, op.out.data, m, epilogue);
  } else {
    gemm(m, n, k, op.a.data, a_row, a_column, op.b.data, b_row, b_column, op.out.data, n, epilogue);
  }
}

template <class Function>
void multiply_then(const MatMul& op, const Function& activation) {
  const std::int64_t n = op.out.shape[1];
  multiply(op, BiasThen<Function>{op.bias.data, n, n != 1, activation});
}

void matmul(const MatMul& op) {
  switch (op.activation) {
    case Activation::identity:
      if (op.bias.data == nullptr) return multiply(op, Identity{});
      return multiply_then(op, [](F x) { return x; });
    case Activation::logistic: return multiply_then(op, [](F x) { return logistic(x); });
    case Activation::tanh: return multiply_then(op, [](F x) { return tanh(x); });
    case Activation::relu: return multiply_then(op, [](F x) { return max(splat(0.0f), x); });
    case Activation::softplus: return multiply_then(op, [](F x) { return softplus(x); });
  }
}

double seconds_now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Multiply-adds that wait for nothing: more independent chains than the units have stages.
double fma_rate(double seconds) {
  constexpr int chains = 12;
  constexpr std::int64_t rounds = 200000;
  const F x = splat(0.999f), y = splat(0.001f);
  double best = 0;
  const double begin = seconds_now();
  do {
    F sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = splat(static_cast<float>(i));
    const double start = seconds_now();
    for (std::int64_t r = 0; r < rounds; ++r) {
      GENCORE_UNROLL
      for (int i = 0; i < chains; ++i) sum[i] = fma(sum[i], x, y);
    }
    const double rate = 2e-9 * chains * lanes * static_cast<double>(rounds) / (seconds_now() - start);
    for (int i = 0; i < chains; ++i) asm volatile("" : : "m"(sum[i]));  // the sums are wanted
    best = rate > best ? rate : best;
  } while (seconds_now() - begin < seconds);
  return best;
}

}  // namespace

void fill_dense(runtime::Table& table) {
  table.dense.MatMul = matmul;
  table.fma_rate = fma_rate;
}

}  // namespace gencore::GENCORE_LEVEL
