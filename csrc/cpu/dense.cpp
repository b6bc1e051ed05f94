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

template <class Function>
void matmul_with(const MatMul& op, const Function& activation) {
  const std::int64_t m = op.out.shape[0], n = op.out.shape[1], k = op.a.shape[op.transpose_a ? 0 : 1];
  const std::int64_t lda = op.a.shape[1], ldb = op.b.shape[1];
  gemm(m, n, k, op.a.data, op.transpose_a ? 1 : lda, op.transpose_a ? lda : 1, op.b.data, op.transpose_b ? 1 : ldb,
       op.transpose_b ? ldb : 1, op.out.data, n, [&](F x, std::int64_t j) {
         if (op.bias.given()) x = x + load_first(op.bias.data + j, static_cast<int>(min_of(lanes, n - j)));
         return activation(x);
       });
}

void matmul(const MatMul& op) {
  switch (op.activation) {
    case Activation::identity: return matmul_with(op, [](F x) { return x; });
    case Activation::logistic: return matmul_with(op, [](F x) { return logistic(x); });
    case Activation::tanh: return matmul_with(op, [](F x) { return tanh(x); });
    case Activation::relu: return matmul_with(op, [](F x) { return max(x, splat(0.0f)); });
    case Activation::softplus: return matmul_with(op, [](F x) { return softplus(x); });
  }
}

double fma_rate(double seconds) {
  F sum[12];
  for (int i = 0; i < 12; ++i) sum[i] = splat(static_cast<float>(i));
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  constexpr std::int64_t rounds = 200000;
  double best = 0;
  for (const double begin = now(); now() - begin < seconds;) {
    const double start = now();
    F s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3], s4 = sum[4], s5 = sum[5], s6 = sum[6], s7 = sum[7], s8 = sum[8],
      s9 = sum[9], s10 = sum[10], s11 = sum[11];
    const F x = splat(0.999f), y = splat(0.001f);
    for (std::int64_t i = 0; i < rounds; ++i) {
      s0 = fma(s0, x, y); s1 = fma(s1, x, y); s2 = fma(s2, x, y); s3 = fma(s3, x, y);
      s4 = fma(s4, x, y); s5 = fma(s5, x, y); s6 = fma(s6, x, y); s7 = fma(s7, x, y);
      s8 = fma(s8, x, y); s9 = fma(s9, x, y); s10 = fma(s10, x, y); s11 = fma(s11, x, y);
    }
    const F total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)) + ((s8 + s9) + (s10 + s11));
    volatile float sink = total[0];
    (void)sink;
    const double rate = 2.0 * 12 * lanes * static_cast<double>(rounds) / (now() - start) * 1e-9;
    best = rate > best ? rate : best;
  }
  return best;
}

}  // namespace

void fill_dense(runtime::Table& table) {
  table.dense.MatMul = matmul;
  table.fma_rate = fma_rate;
}

}  // namespace gencore::GENCORE_LEVEL
