// Dense linear algebra.
#include "gencore/dense.h"

#include <time.h>

#include "../runtime/reject.h"
#include "../runtime/table.h"
#include "activation.h"
#include "binary_product.h"
#include "gemm.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using dense::Activation;
using dense::LinearVjp;
using dense::MatMul;
using runtime::Scratch;

template <class Epilogue>
void multiply(const MatMul& op, const Epilogue& epilogue) {
  if (op.a.type == StateType::u8) {
    if (!binary_product(op.a, op.transpose_a, op.b.data, op.transpose_b, op.out, epilogue)) {
      runtime::reject_states(MatMul::name, "a", op.a);
    }
    return;
  }
  const auto* a = static_cast<const float*>(op.a.data);
  const std::int64_t m = op.out.shape[0], n = op.out.shape[1], k = op.a.shape[op.transpose_a ? 0 : 1];
  const std::int64_t lda = op.a.shape[1], ldb = op.b.shape[1];
  const std::int64_t a_row = op.transpose_a ? 1 : lda, a_column = op.transpose_a ? lda : 1;
  const std::int64_t b_row = op.transpose_b ? 1 : ldb, b_column = op.transpose_b ? ldb : 1;
  if (n == 1) {
    gemm(n, m, k, op.b.data, b_column, b_row, a, a_column, a_row, op.out.data, m, epilogue);
  } else {
    gemm(m, n, k, a, a_row, a_column, op.b.data, b_row, b_column, op.out.data, n, epilogue);
  }
}

void matmul(const MatMul& op) {
  const std::int64_t n = op.out.shape[1];
  const bool along_row = n != 1 || op.a.type == StateType::u8;
  with_epilogue(op.activation, op.bias.data, n, along_row, [&](const auto& epilogue) { multiply(op, epilogue); });
}

// --- gradients of a layer ----------------------------------------------------------------------------------------------

constexpr std::int64_t stretch = 32;  // rows whose sums are float32

// One row: dz = grad slope(y), added to sums; without a slope, dz is grad. dz and sums are optional.
template <class Slope>
void slope_row(const float* grad, const float* y, std::int64_t n, float* dz, float* sums, const Slope& slope) {
  const auto add = [&](std::int64_t j, int valid) {
    const auto read = [&](const float* p) { return valid == lanes ? load(p + j) : load_first(p + j, valid); };
    const F d = slope(read(grad), read(y));
    if (dz != nullptr) store_up_to(dz + j, d, valid);
    if (sums != nullptr) store_up_to(sums + j, read(sums) + d, valid);
  };
  std::int64_t j = 0;
  for (; j + lanes <= n; j += lanes) add(j, lanes);
  if (j < n) add(j, static_cast<int>(n - j));
}

// dz (optional), and its sums over each stretch of rows (optional).
template <class Slope>
void slopes(const LinearVjp& op, float* dz, float* sums, const Slope& slope) {
  const std::int64_t m = op.grad.shape[0], n = op.grad.shape[1];
  const float* y = op.y.given() ? op.y.data : op.grad.data;
  const auto task = [&](std::int64_t i) {
    float* part = sums == nullptr ? nullptr : sums + i * n;
    if (part != nullptr) std::memset(part, 0, 4 * static_cast<std::size_t>(n));
    for (std::int64_t r = i * stretch; r < min_of(m, (i + 1) * stretch); ++r) {
      slope_row(op.grad.row(r), y + r * n, n, dz == nullptr ? nullptr : dz + r * n, part, slope);
    }
  };
  const std::int64_t tasks = ceil_div(m, stretch);
  if (m * n >= 32768) {
    parallel_for(tasks, task);
  } else {  // not worth waking a thread for
    for (std::int64_t i = 0; i < tasks; ++i) task(i);
  }
}

void slopes(const LinearVjp& op, float* dz, float* sums) {
  with_slope(op.activation, [&](const auto& slope) { slopes(op, dz, sums, slope); });
}

// out[j] = the sum of column j over `rows` rows, in float64.
void add_stretches(const float* sums, std::int64_t rows, const Vector<float>& out) {
  const std::int64_t n = out.shape[0];
  constexpr std::int64_t block = 64;
  for (std::int64_t first = 0; first < n; first += block) {
    const std::int64_t count = min_of(block, n - first);
    double total[block] = {};
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < count; ++j) total[j] += static_cast<double>(sums[i * n + first + j]);
    }
    for (std::int64_t j = 0; j < count; ++j) out[first + j] = static_cast<float>(total[j]);
  }
}

void linear_vjp(const LinearVjp& op) {
  const std::int64_t m = op.grad.shape[0], n = op.grad.shape[1], parts = ceil_div(m, stretch);
  const bool products = op.grad_x.given() || op.grad_w.given(), bias = op.grad_bias.given(), kept = op.grad_z.given();
  const bool apart = kept || (products && op.activation != Activation::identity);
  const auto dz_size = static_cast<std::size_t>(apart && !kept ? m * n : 0),
             sums_size = static_cast<std::size_t>(bias ? parts * n : 0);
  Scratch scratch(4 * (dz_size + sums_size) + 128);
  float* dz = kept ? op.grad_z.data : apart ? scratch.carve<float>(dz_size) : nullptr;
  float* sums = bias ? scratch.carve<float>(sums_size) : nullptr;
  if (apart || bias) slopes(op, dz, sums);
  if (bias) add_stretches(sums, parts, op.grad_bias);
  const float* d = apart ? dz : op.grad.data;
  if (op.grad_x.given()) {
    const std::int64_t k = op.w.shape[0];
    if (k == 1) {
      gemm(k, m, n, op.w.data, n, 1, d, 1, n, op.grad_x.data, m, Identity{});
    } else {
      gemm(m, k, n, d, n, 1, op.w.data, 1, n, op.grad_x.data, k, Identity{});
    }
  }
  if (op.grad_w.given()) {
    const std::int64_t k = op.x.shape[1];
    const auto* x = static_cast<const float*>(op.x.data);
    if (op.x.type == StateType::u8) {
      if (!binary_product(op.x, true, d, false, op.grad_w, Identity{})) {
        runtime::reject_states(LinearVjp::name, "x", op.x);
      }
    } else if (n == 1) {
      gemm(n, k, m, d, 1, n, x, k, 1, op.grad_w.data, k, Identity{});
    } else {
      gemm(k, n, m, x, 1, k, d, n, 1, op.grad_w.data, n, Identity{});
    }
  }
}

// --- the machine's limit -----------------------------------------------------------------------------------------------

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
  table.dense.LinearVjp = linear_vjp;
  table.fma_rate = fma_rate;
}

}  // namespace gencore::GENCORE_LEVEL
