// Dense linear algebra: one product with what a layer does to its sums, and a layer's gradients.
#include "gencore/dense.h"
#include "layer.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using dense::Activation;
using dense::LinearVjp;
using dense::MatMul;

void matmul(const MatMul& op) {
  const Size size{op.out.shape[0], op.out.shape[1], op.a.shape[op.transpose_a ? 0 : 1]};
  multiply(op, op.a, op.transpose_a, Factor<float>::of(op.b.data, op.b.shape[1], op.transpose_b), size,
           BiasThen{op.out, op.bias.data, op.activation});
}

// --- gradients of a layer ----------------------------------------------------------------------------------------------

constexpr std::int64_t stretch = 32;  // rows whose sums are float32

// dz = grad slope(y) (optional), and its sums over each stretch of rows (optional): a thread has a column of a stretch.
struct Slopes {
  Matrix<const float> grad;
  const float* y;
  float *dz, *sums;
  Activation activation;

  __device__ void operator()(std::int64_t i) const {
    std::int64_t part, column;
    divide(i, grad.shape[1], part, column);
    float sum = 0;
    for (std::int64_t r = part * stretch; r < grad.shape[0] && r < (part + 1) * stretch; ++r) {
      const std::int64_t at = r * grad.shape[1] + column;
      const float d = slope(activation, grad[at], y[at]);
      if (dz != nullptr) dz[at] = d;
      sum += d;
    }
    if (sums != nullptr) sums[i] = sum;
  }
};

// out[j] = the sum of column j over `rows` rows, in float64.
struct AddStretches {
  const float* sums;
  std::int64_t rows;
  Vector<float> out;

  __device__ void operator()(std::int64_t j) const {
    double total = 0;
    for (std::int64_t i = 0; i < rows; ++i) total += static_cast<double>(sums[i * out.shape[0] + j]);
    out[j] = static_cast<float>(total);
  }
};

void linear_vjp(const LinearVjp& op) {
  const std::int64_t m = op.grad.shape[0], n = op.grad.shape[1], parts = ceil_div(m, stretch);
  const bool products = op.grad_x.given() || op.grad_w.given(), bias = op.grad_bias.given(), kept = op.grad_z.given();
  const bool apart = kept || (products && op.activation != Activation::identity);
  const std::int64_t dz_size = apart && !kept ? m * n : 0, sums_size = bias ? parts * n : 0;
  DeviceScratch scratch(op, DeviceScratch::bytes<float>(dz_size) + DeviceScratch::bytes<float>(sums_size));
  float* dz = kept ? op.grad_z.data : apart ? scratch.carve<float>(dz_size) : nullptr;
  float* sums = bias ? scratch.carve<float>(sums_size) : nullptr;
  if (apart || bias) {
    const float* y = op.y.given() ? op.y.data : op.grad.data;
    for_each_element(op, parts * n, Slopes{op.grad, y, dz, sums, op.activation});
  }
  if (bias) for_each_element(op, n, AddStretches{sums, parts, op.grad_bias});
  const float* d = apart ? dz : op.grad.data;
  if (op.grad_x.given()) {
    const std::int64_t k = op.w.shape[0];
    multiply(op, Factor<float>::of(d, n, false), Factor<float>::of(op.w.data, n, true), Size{m, k, n},
             BiasThen{op.grad_x, nullptr, Activation::identity});
  }
  if (op.grad_w.given()) {
    multiply(op, op.x, true, Factor<float>::of(d, n, false), Size{op.x.shape[1], n, m},
             BiasThen{op.grad_w, nullptr, Activation::identity});
  }
}

}  // namespace

void fill_dense(runtime::Table& table) {
  table.dense.MatMul = matmul;
  table.dense.LinearVjp = linear_vjp;
}

}  // namespace gencore::cuda
