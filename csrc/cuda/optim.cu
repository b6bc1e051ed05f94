// Updates of all parameters of a model, many arrays a launch; the arithmetic is that of cpu/optim_step.cpp, one element a
// thread.
//
// The limit is bandwidth: 7 floats an element move for Adam, 9 ps at 3 TB/s.
#include <cmath>

#include "common.cuh"
#include "gencore/optim.h"
#include "math.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using optim::AdadeltaStep;
using optim::AdagradStep;
using optim::AdamStep;
using optim::EmaUpdate;
using optim::RmspropStep;
using optim::Scale;
using optim::Sgd;
using optim::SgdStep;
using optim::SquareSum;
using optim::StepBase;

// --- many arrays -----------------------------------------------------------------------------------------------------

constexpr int most_arrays = 48;  // of a launch, whose arguments may take 4 KB
constexpr int most_lists = 5;

// Arrays of like sizes in up to five lists, laid end to end. A list that is not given has no arrays.
struct ArrayLists {
  std::int64_t end[most_arrays];
  float* array[most_lists][most_arrays];
  bool given[most_lists];
  int count;

  __device__ int find(std::int64_t i) const {
    int k = 0;
    while (i >= end[k]) ++k;
    return k;
  }
};

struct ListOf {
  VectorList<float> list;
  ListOf(const VectorList<float>& l) : list(l) {}
  ListOf(const VectorList<const float>& l) : list{reinterpret_cast<const Vector<float>*>(l.data), l.count} {}
};

// run(lists, elements) for the arrays of the lists, `most_arrays` at a time. The first list is given.
template <class Run>
void in_batches(const ListOf (&lists)[most_lists], const Run& run) {
  for (std::int64_t first = 0; first < lists[0].list.count; first += most_arrays) {
    ArrayLists batch = {};
    std::int64_t elements = 0;
    const std::int64_t rest = lists[0].list.count - first;
    batch.count = static_cast<int>(rest < most_arrays ? rest : most_arrays);
    for (int l = 0; l < most_lists; ++l) batch.given[l] = lists[l].list.given();
    for (int k = 0; k < batch.count; ++k) {
      for (int l = 0; l < most_lists; ++l) {
        if (batch.given[l]) batch.array[l][k] = lists[l].list[first + k].data;
      }
      batch.end[k] = elements += lists[0].list[first + k].size();
    }
    run(batch, elements);
  }
}

// An element of each list; those that Update::writes names are stored again.
template <class Update>
struct UpdateElements {
  Update update;
  ArrayLists lists;

  __device__ void operator()(std::int64_t i) const {
    const int k = lists.find(i);
    const std::int64_t at = k == 0 ? i : i - lists.end[k - 1];
    float v[most_lists] = {};
#pragma unroll
    for (int l = 0; l < most_lists; ++l) {
      if (lists.given[l]) v[l] = lists.array[l][k][at];
    }
    update(v, lists.given);
#pragma unroll
    for (int l = 0; l < most_lists; ++l) {
      if ((Update::writes >> l & 1) != 0 && lists.given[l]) lists.array[l][k][at] = v[l];
    }
  }
};

template <class Op, class Update>
void update_all(const Op& op, const ListOf (&lists)[most_lists], const Update& update) {
  in_batches(lists, [&](const ArrayLists& batch, std::int64_t elements) {
    for_each_element(op, elements, UpdateElements<Update>{update, batch});
  });
}

const VectorList<float> none{};

// --- their arithmetic --------------------------------------------------------------------------------------------------

__device__ float root(float x) { return __fsqrt_rn(x); }

// a + weight (b - a), from the nearer end, so that weights 0 and 1 are exact.
struct Lerp {
  explicit Lerp(double weight) : near_a(weight < 0.5), factor(static_cast<float>(near_a ? weight : weight - 1)) {}
  __device__ float operator()(float a, float b) const { return fmaf(factor, b - a, near_a ? a : b); }
  bool near_a;
  float factor;
};

// decay s + (1 - decay) g^2
struct SquareAverage {
  explicit SquareAverage(double decay) : kept(static_cast<float>(decay)), taken(static_cast<float>(1 - decay)) {}
  __device__ float operator()(float s, float g) const { return fmaf(taken * g, g, kept * s); }
  float kept, taken;
};

// The gradient that a step sees: turned around to maximize, with the pull of weight decay towards 0.
struct Gradient {
  Gradient(const StepBase& op, double weight_decay)
      : sign(op.maximize ? -1.0f : 1.0f), decay(static_cast<float>(weight_decay)), decays(weight_decay != 0) {}
  __device__ float operator()(float grad, float param) const {
    const float g = sign * grad;
    return decays ? fmaf(decay, param, g) : g;
  }
  float sign, decay;
  bool decays;
};

// Lists: params, grads, momentum buffers.
struct SgdUpdate {
  static constexpr int writes = 0b101;
  Gradient gradient;
  float rate, momentum, taken;
  bool nesterov;
  __device__ void operator()(float (&v)[most_lists], const bool (&given)[most_lists]) const {
    const float g = gradient(v[1], v[0]);
    float change = g;
    if (given[2]) {
      v[2] = fmaf(momentum, v[2], taken * g);
      change = nesterov ? fmaf(momentum, v[2], g) : v[2];
    }
    v[0] = fmaf(rate, change, v[0]);
  }
};

void sgd_step(const SgdStep& op) {
  update_all(op, {op.params, op.grads, op.momentum_buffers, none, none},
             SgdUpdate{Gradient(op, op.weight_decay), static_cast<float>(-op.lr), static_cast<float>(op.momentum),
                       static_cast<float>(1 - op.dampening), op.nesterov});
}

// Lists: params, grads, squares, means, buffers.
struct RmspropUpdate {
  static constexpr int writes = 0b11101;
  Gradient gradient;
  SquareAverage square_average;
  Lerp average;
  float rate, eps, momentum;
  __device__ void operator()(float (&v)[most_lists], const bool (&given)[most_lists]) const {
    const float g = gradient(v[1], v[0]);
    v[2] = square_average(v[2], g);
    float variance = v[2];
    if (given[3]) {
      v[3] = average(v[3], g);
      variance = max(0.0f, fmaf(-v[3], v[3], v[2]));  // in this order a NaN stays one
    }
    float change = g / (root(variance) + eps);
    if (given[4]) change = v[4] = fmaf(momentum, v[4], change);
    v[0] = fmaf(rate, change, v[0]);
  }
};

void rmsprop_step(const RmspropStep& op) {
  update_all(op, {op.params, op.grads, op.square_avgs, op.grad_avgs, op.momentum_buffers},
             RmspropUpdate{Gradient(op, op.weight_decay), SquareAverage(op.alpha), Lerp(1 - op.alpha),
                           static_cast<float>(-op.lr), static_cast<float>(op.eps), static_cast<float>(op.momentum)});
}

// Lists: params, grads, sums.
struct AdagradUpdate {
  static constexpr int writes = 0b101;
  Gradient gradient;
  float rate, eps;
  __device__ void operator()(float (&v)[most_lists], const bool (&)[most_lists]) const {
    const float g = gradient(v[1], v[0]);
    v[2] = fmaf(g, g, v[2]);
    v[0] = fmaf(rate, g / (root(v[2]) + eps), v[0]);
  }
};

void adagrad_step(const AdagradStep& op) {
  const double rate = -op.lr / (1 + static_cast<double>(op.step - 1) * op.lr_decay);
  update_all(op, {op.params, op.grads, op.state_sums, none, none},
             AdagradUpdate{Gradient(op, op.weight_decay), static_cast<float>(rate), static_cast<float>(op.eps)});
}

// Lists: params, grads, squares, deltas.
struct AdadeltaUpdate {
  static constexpr int writes = 0b1101;
  Gradient gradient;
  SquareAverage average;
  float rate, eps;
  __device__ void operator()(float (&v)[most_lists], const bool (&)[most_lists]) const {
    const float g = gradient(v[1], v[0]);
    v[2] = average(v[2], g);
    const float delta = root(v[3] + eps) / root(v[2] + eps) * g;
    v[3] = average(v[3], delta);
    v[0] = fmaf(rate, delta, v[0]);
  }
};

void adadelta_step(const AdadeltaStep& op) {
  update_all(op, {op.params, op.grads, op.square_avgs, op.acc_deltas, none},
             AdadeltaUpdate{Gradient(op, op.weight_decay), SquareAverage(op.rho), static_cast<float>(-op.lr),
                            static_cast<float>(op.eps)});
}

// Lists: params, grads, means, squares, largest squares.
struct AdamUpdate {
  static constexpr int writes = 0b11101;
  Gradient gradient;
  Lerp average;
  SquareAverage square_average;
  float kept, rate, scale, eps;
  __device__ void operator()(float (&v)[most_lists], const bool (&given)[most_lists]) const {
    const float g = gradient(v[1], v[0]);
    v[2] = average(v[2], g);
    float square = v[3] = square_average(v[3], g);
    if (given[4]) square = v[4] = max(v[4], square);  // in this order a NaN gradient shows
    v[0] = fmaf(rate, v[2] / fmaf(root(square), scale, eps), kept * v[0]);
  }
};

void adam_step(const AdamStep& op) {
  const double step = static_cast<double>(op.step);
  const double correction1 = 1 - std::pow(op.beta1, step), correction2 = 1 - std::pow(op.beta2, step);
  update_all(op, {op.params, op.grads, op.exp_avgs, op.exp_avg_sqs, op.max_exp_avg_sqs},
             AdamUpdate{Gradient(op, op.decoupled ? 0 : op.weight_decay), Lerp(1 - op.beta1), SquareAverage(op.beta2),
                        static_cast<float>(op.decoupled ? 1 - op.lr * op.weight_decay : 1),
                        static_cast<float>(-op.lr / correction1), static_cast<float>(1 / std::sqrt(correction2)),
                        static_cast<float>(op.eps)});
}

// Lists: averages, params.
struct Average {
  static constexpr int writes = 0b1;
  Lerp average;
  __device__ void operator()(float (&v)[most_lists], const bool (&)[most_lists]) const { v[0] = average(v[0], v[1]); }
};

void ema_update(const EmaUpdate& op) {
  update_all(op, {op.averages, op.params, none, none, none}, Average{Lerp(1 - op.decay)});
}

struct Multiply {
  static constexpr int writes = 0b1;
  float factor;
  __device__ void operator()(float (&v)[most_lists], const bool (&)[most_lists]) const { v[0] *= factor; }
};

void scale(const Scale& op) {
  update_all(op, {op.arrays, none, none, none, none}, Multiply{static_cast<float>(op.factor)});
}

// --- one array uphill --------------------------------------------------------------------------------------------------

struct Uphill {
  Sgd op;
  __device__ void operator()(std::int64_t i) const {
    const float param = op.param[i];
    float change = fmaf(-op.weight_decay, param, op.grad[i]) * op.lr;
    if (op.velocity.given()) change = op.velocity[i] = fmaf(op.momentum, op.velocity[i], change);
    op.param[i] = param + change;
  }
};

void sgd(const Sgd& op) { for_each_element(op, op.param.shape[0], Uphill{op}); }

// --- a sum of squares --------------------------------------------------------------------------------------------------

constexpr std::int64_t part_elements = 16 * block_threads;  // of a block

// In an order that the arrays' sizes decide.
__device__ void sum_of_block(double value, double* out) {
  __shared__ double of_thread[block_threads];
  of_thread[threadIdx.x] = value;
  __syncthreads();
  for (int half = block_threads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) of_thread[threadIdx.x] += of_thread[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) *out = of_thread[0];
}

struct SquaresOfPart {
  ArrayLists lists;
  std::int64_t elements;
  double* parts;

  __device__ void operator()() const {
    double total = 0;
    for (int s = 0; s < part_elements / block_threads; ++s) {
      const std::int64_t i = blockIdx.x * part_elements + s * block_threads + threadIdx.x;
      if (i >= elements) break;
      const int k = lists.find(i);
      const double x = static_cast<double>(lists.array[0][k][k == 0 ? i : i - lists.end[k - 1]]);
      total += x * x;
    }
    sum_of_block(total, parts + blockIdx.x);
  }
};

struct SumOfParts {
  const double* parts;
  std::int64_t count;
  double* out;
  __device__ void operator()() const {
    double total = 0;
    for (std::int64_t i = threadIdx.x; i < count; i += block_threads) total += parts[i];
    sum_of_block(total, out);
  }
};

void square_sum(const SquareSum& op) {
  const ListOf lists[most_lists] = {op.arrays, none, none, none, none};
  std::int64_t count = 0;
  in_batches(lists, [&](const ArrayLists&, std::int64_t elements) { count += ceil_div(elements, part_elements); });
  DeviceScratch scratch(op, DeviceScratch::bytes<double>(count));
  double* parts = scratch.carve<double>(count);
  std::int64_t done = 0;
  in_batches(lists, [&](const ArrayLists& batch, std::int64_t elements) {
    for_each_block(op, ceil_div(elements, part_elements), SquaresOfPart{batch, elements, parts + done});
    done += ceil_div(elements, part_elements);
  });
  for_each_block(op, 1, SumOfParts{parts, count, op.out.data});
}

}  // namespace

void fill_optim(runtime::Table& table) {
  table.optim.Sgd = sgd;
  table.optim.SgdStep = sgd_step;
  table.optim.RmspropStep = rmsprop_step;
  table.optim.AdagradStep = adagrad_step;
  table.optim.AdadeltaStep = adadelta_step;
  table.optim.AdamStep = adam_step;
  table.optim.EmaUpdate = ema_update;
  table.optim.SquareSum = square_sum;
  table.optim.Scale = scale;
}

}  // namespace gencore::cuda
