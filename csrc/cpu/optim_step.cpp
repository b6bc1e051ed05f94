// Updates of all parameters of a model: one pass over memory, one parallel loop over all arrays.
#include "../runtime/scratch.h"
#include "../runtime/table.h"
#include "gencore/optim.h"
#include "parallel.h"
#include "vec.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using optim::AdadeltaStep;
using optim::AdagradStep;
using optim::AdamStep;
using optim::EmaUpdate;
using optim::RmspropStep;
using optim::Scale;
using optim::SgdStep;
using optim::SquareSum;
using optim::StepBase;

constexpr std::int64_t block = 65536;  // shorter ones stop the processor from reading ahead too often

template <class T>
std::int64_t task_count(const VectorList<T>& list) {
  std::int64_t elements = 0;
  for (std::int64_t k = 0; k < list.count; ++k) elements += list[k].size();
  return ceil_div(elements, block);
}

// Cuts all arrays, laid end to end, into blocks, and calls piece(task, k, begin, end) for each part of array k in one:
// many small arrays share a task, and a large one gives work to every thread.
template <class T, class Piece>
void for_each_piece(const VectorList<T>& list, const Piece& piece) {
  parallel_for(task_count(list), [&](std::int64_t task) {
    std::int64_t begin = task * block, left = block, k = 0;
    while (begin >= list[k].size()) begin -= list[k++].size();
    for (; k < list.count && left > 0; ++k, begin = 0) {
      const std::int64_t end = min_of(list[k].size(), begin + left);
      piece(task, k, begin, end);
      left -= end - begin;
    }
  });
}

// How a vector is read and written: all lanes, or the first few.
struct AllLanes {
  GENCORE_INLINE F read(const float* p) const { return load(p); }
  GENCORE_INLINE void write(float* p, F v) const { store(p, v); }
};
struct FirstLanes {
  int n;
  GENCORE_INLINE F read(const float* p) const { return load_first(p, n); }
  GENCORE_INLINE void write(float* p, F v) const { store_first(p, v, n); }
};

// update(i, lanes) for every vector of elements begin .. end - 1. A short first one brings `array` to a vector's
// boundary: allocators put large arrays at the same distance from one, and to straddle cache lines costs a third.
template <class Update>
GENCORE_INLINE void sweep(const float* array, std::int64_t begin, std::int64_t end, const Update& update) {
  const auto past = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(array + begin) / sizeof(float) % lanes);
  std::int64_t i = begin;
  if (past > 0) {
    i = min_of(end, begin + lanes - past);
    update(begin, FirstLanes{static_cast<int>(i - begin)});
  }
  for (; i + lanes <= end; i += lanes) update(i, AllLanes{});
  if (i < end) update(i, FirstLanes{static_cast<int>(end - i)});
}

GENCORE_INLINE F number(double x) { return splat(static_cast<float>(x)); }

// Array k of a list that may not be given.
GENCORE_INLINE float* array_of(const VectorList<float>& list, std::int64_t k) {
  return list.given() ? list[k].data : nullptr;
}

// a + weight (b - a), from the nearer end, so that weights 0 and 1 are exact.
struct Lerp {
  explicit Lerp(double weight) : near_a(weight < 0.5), factor(number(near_a ? weight : weight - 1)) {}
  GENCORE_INLINE F operator()(F a, F b) const { return fma(factor, b - a, near_a ? a : b); }
  bool near_a;
  F factor;
};

// decay s + (1 - decay) g^2
struct SquareAverage {
  explicit SquareAverage(double decay) : kept(number(decay)), taken(number(1 - decay)) {}
  GENCORE_INLINE F operator()(F s, F g) const { return fma(taken * g, g, kept * s); }
  F kept, taken;
};

// The gradient that a step sees: turned around to maximize, with the pull of weight decay towards 0.
struct Gradient {
  Gradient(const StepBase& op, double weight_decay)
      : sign(number(op.maximize ? -1 : 1)), decay(number(weight_decay)), decays(weight_decay != 0) {}
  GENCORE_INLINE F operator()(F grad, F param) const {
    const F g = sign * grad;
    return decays ? fma(decay, param, g) : g;
  }
  F sign, decay;
  bool decays;
};

void sgd_step(const SgdStep& op) {
  const Gradient gradient(op, op.weight_decay);
  const F rate = number(-op.lr), momentum = number(op.momentum), taken = number(1 - op.dampening);
  const bool nesterov = op.nesterov;
  for_each_piece(op.params, [&](std::int64_t, std::int64_t k, std::int64_t begin, std::int64_t end) {
    float* const params = op.params[k].data;
    float* const buffers = array_of(op.momentum_buffers, k);
    const float* const grads = op.grads[k].data;
    sweep(params, begin, end, [=](std::int64_t i, auto at) {
      const F param = at.read(params + i), g = gradient(at.read(grads + i), param);
      F change = g;
      if (buffers != nullptr) {
        const F buffer = fma(momentum, at.read(buffers + i), taken * g);
        at.write(buffers + i, buffer);
        change = nesterov ? fma(momentum, buffer, g) : buffer;
      }
      at.write(params + i, fma(rate, change, param));
    });
  });
}

void rmsprop_step(const RmspropStep& op) {
  const Gradient gradient(op, op.weight_decay);
  const SquareAverage square_average(op.alpha);
  const Lerp average(1 - op.alpha);
  const F rate = number(-op.lr), eps = number(op.eps), momentum = number(op.momentum);
  for_each_piece(op.params, [&](std::int64_t, std::int64_t k, std::int64_t begin, std::int64_t end) {
    float* const params = op.params[k].data;
    float* const squares = op.square_avgs[k].data;
    float* const means = array_of(op.grad_avgs, k);
    float* const buffers = array_of(op.momentum_buffers, k);
    const float* const grads = op.grads[k].data;
    sweep(params, begin, end, [=](std::int64_t i, auto at) {
      const F param = at.read(params + i), g = gradient(at.read(grads + i), param);
      const F square = square_average(at.read(squares + i), g);
      at.write(squares + i, square);
      F variance = square;
      if (means != nullptr) {
        const F mean = average(at.read(means + i), g);
        at.write(means + i, mean);
        variance = max(F{}, fma(-mean, mean, square));  // in this order a NaN stays one
      }
      F change = g / (sqrt(variance) + eps);
      if (buffers != nullptr) {
        change = fma(momentum, at.read(buffers + i), change);
        at.write(buffers + i, change);
      }
      at.write(params + i, fma(rate, change, param));
    });
  });
}

void adagrad_step(const AdagradStep& op) {
  const Gradient gradient(op, op.weight_decay);
  const F rate = number(-op.lr / (1 + static_cast<double>(op.step - 1) * op.lr_decay)), eps = number(op.eps);
  for_each_piece(op.params, [&](std::int64_t, std::int64_t k, std::int64_t begin, std::int64_t end) {
    float* const params = op.params[k].data;
    float* const sums = op.state_sums[k].data;
    const float* const grads = op.grads[k].data;
    sweep(params, begin, end, [=](std::int64_t i, auto at) {
      const F param = at.read(params + i), g = gradient(at.read(grads + i), param);
      const F sum = fma(g, g, at.read(sums + i));
      at.write(sums + i, sum);
      at.write(params + i, fma(rate, g / (sqrt(sum) + eps), param));
    });
  });
}

void adadelta_step(const AdadeltaStep& op) {
  const Gradient gradient(op, op.weight_decay);
  const SquareAverage average(op.rho);
  const F rate = number(-op.lr), eps = number(op.eps);
  for_each_piece(op.params, [&](std::int64_t, std::int64_t k, std::int64_t begin, std::int64_t end) {
    float* const params = op.params[k].data;
    float* const squares = op.square_avgs[k].data;
    float* const deltas = op.acc_deltas[k].data;
    const float* const grads = op.grads[k].data;
    sweep(params, begin, end, [=](std::int64_t i, auto at) {
      const F param = at.read(params + i), g = gradient(at.read(grads + i), param);
      const F square = average(at.read(squares + i), g);
      at.write(squares + i, square);
      const F past = at.read(deltas + i), delta = sqrt(past + eps) / sqrt(square + eps) * g;
      at.write(deltas + i, average(past, delta));
      at.write(params + i, fma(rate, delta, param));
    });
  });
}

void adam_step(const AdamStep& op) {
  const double step = static_cast<double>(op.step);
  const double correction1 = 1 - __builtin_pow(op.beta1, step), correction2 = 1 - __builtin_pow(op.beta2, step);
  const Gradient gradient(op, op.decoupled ? 0 : op.weight_decay);
  const Lerp average(1 - op.beta1);
  const SquareAverage square_average(op.beta2);
  const F kept = number(op.decoupled ? 1 - op.lr * op.weight_decay : 1);
  const F rate = number(-op.lr / correction1), scale = number(1 / __builtin_sqrt(correction2)), eps = number(op.eps);
  for_each_piece(op.params, [&](std::int64_t, std::int64_t k, std::int64_t begin, std::int64_t end) {
    float* const params = op.params[k].data;
    float* const means = op.exp_avgs[k].data;
    float* const squares = op.exp_avg_sqs[k].data;
    float* const largest = array_of(op.max_exp_avg_sqs, k);
    const float* const grads = op.grads[k].data;
    sweep(params, begin, end, [=](std::int64_t i, auto at) {
      const F param = at.read(params + i), g = gradient(at.read(grads + i), param);
      const F mean = average(at.read(means + i), g);
      at.write(means + i, mean);
      F square = square_average(at.read(squares + i), g);
      at.write(squares + i, square);
      if (largest != nullptr) {
        square = max(at.read(largest + i), square);  // in this order a NaN gradient shows
        at.write(largest + i, square);
      }
      at.write(params + i, fma(rate, mean / fma(sqrt(square), scale, eps), kept * param));
    });
  });
}

void ema_update(const EmaUpdate& op) {
  const Lerp average(1 - op.decay);
  for_each_piece(op.averages, [&](std::int64_t, std::int64_t k, std::int64_t begin, std::int64_t end) {
    float* const averages = op.averages[k].data;
    const float* const params = op.params[k].data;
    sweep(averages, begin, end, [=](std::int64_t i, auto at) {
      at.write(averages + i, average(at.read(averages + i), at.read(params + i)));
    });
  });
}

void scale(const Scale& op) {
  const F factor = number(op.factor);
  for_each_piece(op.arrays, [&](std::int64_t, std::int64_t k, std::int64_t begin, std::int64_t end) {
    float* const array = op.arrays[k].data;
    sweep(array, begin, end, [=](std::int64_t i, auto at) { at.write(array + i, at.read(array + i) * factor); });
  });
}

typedef float Half __attribute__((vector_size(2 * GENCORE_LANES), may_alias));  // lanes / 2 floats
typedef double D __attribute__((vector_size(4 * GENCORE_LANES), may_alias));    // and as many doubles

// Sums of squares of elements i = j mod 32 of a part. Squares of float32 are exact in float64, and additions come in
// one order at every width, so the bits are the same on every level.
struct SquareSums {
  static constexpr int width = 32, vectors = 2 * width / lanes;
  D sums[vectors] = {};

  GENCORE_INLINE void add(const float* p) {
    GENCORE_UNROLL
    for (int j = 0; j < vectors; ++j) {
      Half half;
      __builtin_memcpy(&half, p + j * (lanes / 2), sizeof half);
      const D x = __builtin_convertvector(half, D);
      sums[j] += x * x;
    }
  }
  GENCORE_INLINE double total() const {
    double s = 0;
    for (int j = 0; j < vectors; ++j)
      for (int i = 0; i < lanes / 2; ++i) s += sums[j][i];
    return s;
  }
};

double square_sum_of(const float* p, std::int64_t n) {
  SquareSums sums;
  std::int64_t i = 0;
  for (; i + SquareSums::width <= n; i += SquareSums::width) sums.add(p + i);
  if (i < n) {
    float rest[SquareSums::width] = {};
    for (std::int64_t j = 0; j < n - i; ++j) rest[j] = p[i + j];
    sums.add(rest);
  }
  return sums.total();
}

void square_sum(const SquareSum& op) {
  const std::int64_t tasks = task_count(op.arrays);
  runtime::Scratch scratch(8 * static_cast<std::size_t>(tasks) + 64);
  double* const partial = scratch.carve<double>(static_cast<std::size_t>(tasks));
  for (std::int64_t t = 0; t < tasks; ++t) partial[t] = 0;
  for_each_piece(op.arrays, [&](std::int64_t task, std::int64_t k, std::int64_t begin, std::int64_t end) {
    partial[task] += square_sum_of(op.arrays[k].data + begin, end - begin);
  });
  op.out[0] = 0;
  for (std::int64_t t = 0; t < tasks; ++t) op.out[0] += partial[t];
}

}  // namespace

void fill_optim_step(runtime::Table& table) {
  table.optim.SgdStep = sgd_step;
  table.optim.RmspropStep = rmsprop_step;
  table.optim.AdagradStep = adagrad_step;
  table.optim.AdadeltaStep = adadelta_step;
  table.optim.AdamStep = adam_step;
  table.optim.EmaUpdate = ema_update;
  table.optim.SquareSum = square_sum;
  table.optim.Scale = scale;
}

}  // namespace gencore::GENCORE_LEVEL
