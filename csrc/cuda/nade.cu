// NADE: log-probabilities and samples, a block for each row, whose hidden units lie in its shared memory. They change after
// a one only. Until the next one, logits do not depend on each other: a warp takes a dimension, and the block meets once
// for each one in x.
//
// The limit: a row reads all of v, and of w the rows of its ones, from the second-level cache, 1.6 and 0.2 MB for 784 x 500.
// At some 5 TB/s 0.4 us a row where there are as many rows as multiprocessors; below, what a row's chain of K ones takes, two
// barriers and H / 256 logistic functions a thread each.
#include "bernoulli_cost.cuh"
#include "common.cuh"
#include "nade.cuh"
#include "rbm_draw.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using autoregressive::NadeLogProb;
using autoregressive::NadeSample;

constexpr int warps = block_threads / warp_lanes;
constexpr std::size_t flag_bytes = 2 * warps;  // of the sampler, at the beginning of the shared memory

// The hidden units of a block's row: a and h = logistic(a).
struct Hidden {
  float *a, *h;
  std::int64_t count;

  // In shared memory, or where that is too small in `memory`.
  __device__ Hidden(const Nade& model, float* memory)
      : a(memory == nullptr ? reinterpret_cast<float*>(dynamic_shared() + flag_bytes)
                            : memory + blockIdx.x * 2 * model.hidden),
        h(a + model.hidden),
        count(model.hidden) {
    for (std::int64_t j = threadIdx.x; j < count; j += block_threads) {
      a[j] = model.c[j];
      h[j] = logistic(a[j]);
    }
    __syncthreads();
  }

  // a += w, by the whole block.
  __device__ void add(const float* w) const {
    __syncthreads();  // nobody reads h any longer
    for (std::int64_t j = threadIdx.x; j < count; j += block_threads) {
      const float x = a[j] + w[j];
      a[j] = x;
      h[j] = logistic(x);
    }
    __syncthreads();
  }

  // v . h, by a warp: the same value in all lanes.
  __device__ float dot(const float* v) const {
    float sum = 0;
#pragma unroll 8
    for (std::int64_t j = threadIdx.x % warp_lanes; j < count; j += warp_lanes) sum = fmaf(__ldg(v + j), h[j], sum);
    for (int step = warp_lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
    return sum;
  }
};

// kernel(arguments..., memory beyond what is shared) by `rows` blocks with 2 H floats each.
template <class Op, class... Parameters, class... Arguments>
void launch_with_hidden(const Op& op, const Nade& model, std::int64_t rows, void (*kernel)(Parameters...),
                        const Arguments&... arguments) {
  const std::size_t bytes = flag_bytes + 2 * sizeof(float) * static_cast<std::size_t>(model.hidden);
  const bool on_chip = bytes <= most_shared(op, kernel);
  const std::int64_t floats = on_chip ? 0 : rows * 2 * model.hidden;
  DeviceScratch scratch(op, DeviceScratch::bytes<float>(floats));
  float* memory = on_chip ? nullptr : scratch.carve<float>(floats);
  launch_blocks(op, rows, block_threads, on_chip ? bytes : flag_bytes, kernel, arguments..., memory);
}

// --- log-probabilities ---------------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(block_threads) row_logits(Nade model, Targets x, float* logits, float* memory) {
  const Hidden hidden(model, memory);
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes, warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * model.dims;
  for (std::int64_t first = 0; first < model.dims; first += warp_lanes) {
    // The ones of 32 dimensions, in every warp. After the last dimension nothing comes.
    const std::int64_t left = model.dims - first, count = left < warp_lanes ? left : warp_lanes;
    const bool on = lane + 1 < left && x[row + model.at(first + lane)] != 0.0f;
    unsigned ones = __ballot_sync(all_lanes, on);
    for (int begin = 0; begin < count;) {
      const int end = ones != 0 ? __ffs(static_cast<int>(ones)) : static_cast<int>(count);
      for (int k = begin + warp; k < end; k += warps) {
        const std::int64_t d = model.at(first + k);
        const float logit = model.b[d] + hidden.dot(model.v + d * model.hidden);
        if (lane == 0) logits[row + d] = logit;
      }
      if (ones != 0) hidden.add(model.w + model.at(first + end - 1) * model.hidden);
      ones &= ones - 1;
      begin = end;
    }
  }
}

struct LogProbOfLogits {
  const float* logits;
  Targets x;
  std::int64_t dims;
  Vector<float> out;

  __device__ void operator()(const Team& team, std::int64_t row, bool exists) const {
    BernoulliCost cost;
    for (std::int64_t d = team.rank; exists && d < dims; d += team.size) {
      cost.add(logits[row * dims + d], x[row * dims + d] != 0.0f ? 1.0f : 0.0f);
    }
    const double total = team.sum(cost.value());
    if (exists && team.rank == 0) out[row] = static_cast<float>(-total);
  }
};

void nade_log_prob(const NadeLogProb& op) {
  const std::int64_t n = op.x.shape[0], dims = op.w.shape[0], kept = op.logits.given() ? 0 : n * dims;
  DeviceScratch scratch(op, DeviceScratch::bytes<float>(kept));
  float* logits = op.logits.given() ? op.logits.data : scratch.carve<float>(kept);
  nade_logits(op, op.x, logits);
  for_each_row(op, n, dims, LogProbOfLogits{logits, Targets(op.x), dims, op.out});
}

// --- samples -------------------------------------------------------------------------------------------------------------

// One row for all, or one for each.
struct Known {
  Targets states;
  std::int64_t stride;
  explicit Known(const ConstStates& s) : states(s), stride(s.shape[0] == 1 ? 0 : s.shape[1]) {}
  __device__ bool operator()(std::int64_t row, std::int64_t d) const { return states[row * stride + d] != 0.0f; }
};

// The warps draw the next dimensions as if none of them were 1, which is right up to the first that is.
__global__ void __launch_bounds__(block_threads)
    draw_row(NadeSample op, Nade model, Known given, Known mask, float* memory) {
  // Of a round and of the next, so that one barrier a round is enough.
  auto* drawn = reinterpret_cast<bool*>(dynamic_shared());
  const Hidden hidden(model, memory);
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes, warp = static_cast<int>(threadIdx.x) / warp_lanes;
  const std::int64_t row = blockIdx.x;
  const RowDraw draw{op.key, philox::nade_head, static_cast<std::uint64_t>(op.step),
                     static_cast<std::uint64_t>(op.first_row + row)};
  int round = 0;
  for (std::int64_t first = 0; first < model.dims; round ^= 1) {
    const std::int64_t d = model.at(first + warp), left = model.dims - first;
    if (warp < left) {
      bool one;
      if (op.mask.given() && mask(row, d)) {
        one = given(row, d);
      } else {
        const float logit = model.b[d] + hidden.dot(model.v + d * model.hidden);
        const std::uint32_t head = philox::half_at(draw.key, draw.stream(0), d);
        one = draw_unit(draw, d, head, odds_of(logit / op.temperature));
      }
      if (lane == 0) drawn[round * warps + warp] = one;
    }
    __syncthreads();
    const int count = static_cast<int>(left < warps ? left : warps);
    int taken = 0;
    while (taken < count && !drawn[round * warps + taken]) ++taken;
    const bool one = taken < count;
    if (one) ++taken;
    if (warp < taken && lane == 0) op.out.row(row)[d] = static_cast<std::uint8_t>(one && warp == taken - 1);
    first += taken;
    if (one && first < model.dims) hidden.add(model.w + model.at(first - 1) * model.hidden);
  }
}

void nade_sample(const NadeSample& op) {
  const Nade model(op);
  launch_with_hidden(op, model, op.out.shape[0], draw_row, op, model, Known(op.given), Known(op.mask));
}

}  // namespace

template <class Op>
void nade_logits(const Op& op, const ConstStates& x, float* logits) {
  const Nade model(op);
  if (model.dims == 0) return;
  launch_with_hidden(op, model, x.shape[0], row_logits, model, Targets(x), logits);
}
template void nade_logits(const autoregressive::NadeLogProbVjp& op, const ConstStates& x, float* logits);

void fill_nade(runtime::Table& table) {
  table.autoregressive.NadeLogProb = nade_log_prob;
  table.autoregressive.NadeSample = nade_sample;
}

}  // namespace gencore::cuda
