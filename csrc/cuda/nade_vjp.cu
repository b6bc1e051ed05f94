// NADE's gradients. Once the slopes g of the logits are known, hidden units are independent of each other: a thread has one
// unit of four rows, and goes through the dimensions without meeting another. A run, from one of a row's ones to the next,
// has one h:
//   grad_v_d += g_d h,   da of the run = h (1 - h) sum_d g_d v_d,   grad_w_d = sum of da over the runs after d.
//
// The sums over later runs need the runs in reverse. So a first sweep notes a at the beginning of each segment of 32
// dimensions, and the second takes the segments from the last to the first, each of them forwards and back: 4 (32 + D / 32)
// floats a thread instead of 4 D. Rows are cut by their number alone, and the parts' sums added in order.
//
// The limit, for 100 rows of 784 x 500 with 110 ones each: 80 M multiply-adds, 6.7 M logistic functions of some 25
// instructions, and 12,500 threads to do it: 140 instructions of each a dimension, 110,000 cycles or 65 us at one a cycle
// and thread. That counts no latency, which so few threads, not a warp for each scheduler, do not hide: it will take longer.
#include "bernoulli_cost.cuh"
#include "common.cuh"
#include "nade.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using autoregressive::NadeLogProbVjp;

constexpr int group = 4;     // rows of a thread
constexpr int segment = 32;  // dimensions between two notes
constexpr std::int64_t most_parts = 32;
constexpr int unit_threads = 128;  // of a block: hidden units

// Of each group of rows and dimension: the slopes of its four rows, and which of them are 1. 0 for rows that are not there.
struct Groups {
  float4* slopes;
  std::uint8_t* ones;
  std::int64_t count, dims;
};

struct GroupSlopes {
  Vector<const float> grad;
  Targets x;
  const float* logits;
  std::int64_t rows;
  Groups groups;

  __device__ void operator()(std::int64_t i) const {
    std::int64_t g, d;
    divide(i, groups.dims, g, d);
    float slope[group] = {};
    unsigned ones = 0;
#pragma unroll
    for (int r = 0; r < group; ++r) {
      const std::int64_t row = g * group + r;
      if (row >= rows) break;
      const bool one = x[row * groups.dims + d] != 0.0f;
      slope[r] = grad[row] * bernoulli_slope(logits[row * groups.dims + d], one ? 1.0f : 0.0f);
      ones |= static_cast<unsigned>(one) << r;
    }
    groups.slopes[i] = {slope[0], slope[1], slope[2], slope[3]};
    groups.ones[i] = static_cast<std::uint8_t>(ones);
  }
};

// grad_b: a thread a dimension.
struct BiasGradient {
  Groups groups;
  Vector<float> out;

  __device__ void operator()(std::int64_t d) const {
    double total = 0;
    for (std::int64_t g = 0; g < groups.count; ++g) {
      const float4 s = groups.slopes[g * groups.dims + d];
      total += (static_cast<double>(s.x) + static_cast<double>(s.y)) +
               (static_cast<double>(s.z) + static_cast<double>(s.w));
    }
    out[d] = static_cast<float>(total);
  }
};

// Each part's sums over its rows: w and v (parts, D, H), c (parts, H).
struct Parts {
  float *w, *v, *c;
  std::int64_t count;
};

// What a thread notes: four floats a note, those of one note side by side for all threads.
struct Notes {
  float4* data;
  std::int64_t threads, own;
  __device__ float4& operator[](std::int64_t i) const { return data[i * threads + own]; }
};

// A unit of a group of rows.
class UnitSweep {
 public:
  __device__ UnitSweep(const Nade& model, const Groups& groups, std::int64_t g, std::int64_t unit, const Notes& starts,
                       float* runs, std::int64_t runs_stride)
      : model_(model),
        slopes_(groups.slopes + g * groups.dims),
        ones_(groups.ones + g * groups.dims),
        unit_(unit),
        starts_(starts),
        runs_(runs),
        runs_stride_(runs_stride) {}

  // a at the beginning of each segment.
  __device__ void note_starts() const {
    const float c = model_.c[unit_];
    float a[group] = {c, c, c, c};
    for (std::int64_t i = 0; i < model_.dims; ++i) {
      if (i % segment == 0) starts_[i / segment] = {a[0], a[1], a[2], a[3]};
      const std::int64_t d = model_.at(i);
      const unsigned ones = ones_[d];
      if (ones == 0) continue;
      const float w = model_.w[d * model_.hidden + unit_];
#pragma unroll
      for (int r = 0; r < group; ++r) {
        if ((ones >> r & 1u) != 0) a[r] += w;
      }
    }
  }

  // Adds to this part's sums, or begins them.
  __device__ void add(float* grad_w, float* grad_v, float* grad_c, bool begin) {
    for (std::int64_t s = (model_.dims + segment - 1) / segment - 1; s >= 0; --s) {
      const std::int64_t first = s * segment, end = model_.dims - first < segment ? model_.dims : first + segment;
      forwards(s, first, end, grad_v, begin);
      back(first, end, grad_w, begin);
    }
    float sum = begin ? 0.0f : grad_c[unit_];
#pragma unroll
    for (int r = 0; r < group; ++r) sum += later_[r];
    grad_c[unit_] = sum;
  }

 private:
  // da of the run that ends.
  __device__ static float run_gradient(float h, float dh) { return dh * (h * (1.0f - h)); }

  __device__ void forwards(std::int64_t s, std::int64_t first, std::int64_t end, float* grad_v, bool begin) {
    const float4 start = starts_[s];
    float a[group] = {start.x, start.y, start.z, start.w}, h[group], dh[group];
#pragma unroll
    for (int r = 0; r < group; ++r) {
      h[r] = logistic(a[r]);
      dh[r] = 0;
    }
    top_ = 0;
    for (std::int64_t i = first; i < end; ++i) {
      const std::int64_t d = model_.at(i), at = d * model_.hidden + unit_;
      const float4 slopes = slopes_[d];
      const float g[group] = {slopes.x, slopes.y, slopes.z, slopes.w}, v = model_.v[at];
      float sum = begin ? 0.0f : grad_v[at];
#pragma unroll
      for (int r = 0; r < group; ++r) {
        sum = fmaf(g[r], h[r], sum);
        dh[r] = fmaf(g[r], v, dh[r]);
      }
      grad_v[at] = sum;
      const unsigned ones = ones_[d];
      if (ones == 0 || i + 1 == model_.dims) continue;
      const float w = model_.w[at];
#pragma unroll
      for (int r = 0; r < group; ++r) {
        if ((ones >> r & 1u) == 0) continue;
        runs_[top_++ * runs_stride_] = run_gradient(h[r], dh[r]);
        a[r] += w;
        h[r] = logistic(a[r]);
        dh[r] = 0;
      }
    }
    // What follows the last one of the segment is the beginning of a run that goes on.
#pragma unroll
    for (int r = 0; r < group; ++r) later_[r] += run_gradient(h[r], dh[r]);
  }

  // The sum of da over the runs after a one is its gradient of w.
  __device__ void back(std::int64_t first, std::int64_t end, float* grad_w, bool begin) {
    for (std::int64_t i = end - 1; i >= first; --i) {
      const std::int64_t d = model_.at(i), at = d * model_.hidden + unit_;
      const unsigned ones = i + 1 == model_.dims ? 0 : ones_[d];
      if (ones == 0 && !begin) continue;
      float sum = begin ? 0.0f : grad_w[at];
#pragma unroll
      for (int r = group - 1; r >= 0; --r) {  // as they were noted, the last first
        if ((ones >> r & 1u) == 0) continue;
        sum += later_[r];
        later_[r] += runs_[--top_ * runs_stride_];
      }
      grad_w[at] = sum;
    }
  }

  const Nade& model_;
  const float4* slopes_;
  const std::uint8_t* ones_;
  std::int64_t unit_;
  const Notes& starts_;
  float* runs_;
  std::int64_t runs_stride_, top_ = 0;
  float later_[group] = {};  // sums of da
};

// Block b has stretch b / parts of the units, and the groups of part b % parts.
__global__ void __launch_bounds__(unit_threads)
    add_groups(Nade model, Groups groups, Parts parts, float4* starts, float* runs) {
  const std::int64_t part = blockIdx.x % parts.count, unit = blockIdx.x / parts.count * unit_threads + threadIdx.x;
  if (unit >= model.hidden) return;
  const std::int64_t threads = parts.count * model.hidden, own = part * model.hidden + unit;
  const Notes notes{starts, threads, own};
  const std::int64_t begin = groups.count * part / parts.count, end = groups.count * (part + 1) / parts.count;
  const std::int64_t skip = part * model.dims * model.hidden;
  for (std::int64_t g = begin; g < end; ++g) {
    UnitSweep sweep(model, groups, g, unit, notes, runs + own, threads);
    sweep.note_starts();
    sweep.add(parts.w + skip, parts.v + skip, parts.c + part * model.hidden, g == begin);
  }
}

// out[i] = the sum of element i of every part.
struct AddParts {
  const float* sums;
  std::int64_t parts, size;
  float* out;

  __device__ void operator()(std::int64_t i) const {
    double total = 0;
    for (std::int64_t p = 0; p < parts; ++p) total += static_cast<double>(sums[p * size + i]);
    out[i] = static_cast<float>(total);
  }
};

void nade_log_prob_vjp(const NadeLogProbVjp& op) {
  const Nade model(op);
  const std::int64_t n = op.x.shape[0], dims = model.dims, count = ceil_div(n, group);
  const std::int64_t units = count * dims, parts = count < most_parts ? count : most_parts;
  const std::int64_t computed = op.logits.given() ? 0 : n * dims, threads = parts * model.hidden;
  const std::int64_t starts = ceil_div(dims, segment) * threads, runs = segment * group * threads;
  const std::int64_t matrix = dims * model.hidden;
  using Memory = DeviceScratch;
  Memory scratch(op, Memory::bytes<float>(computed) + Memory::bytes<float4>(units) +
                         Memory::bytes<std::uint8_t>(units) + 2 * Memory::bytes<float>(parts * matrix) +
                         Memory::bytes<float>(threads) + Memory::bytes<float4>(starts) + Memory::bytes<float>(runs));
  const float* logits = op.logits.data;
  if (!op.logits.given()) {
    float* found = scratch.carve<float>(computed);
    nade_logits(op, op.x, found);
    logits = found;
  }
  const Groups groups{scratch.carve<float4>(units), scratch.carve<std::uint8_t>(units), count, dims};
  const Parts sums{scratch.carve<float>(parts * matrix), scratch.carve<float>(parts * matrix),
                   scratch.carve<float>(threads), parts};
  float4* notes = scratch.carve<float4>(starts);
  for_each_element(op, units, GroupSlopes{op.grad, Targets(op.x), logits, n, groups});
  for_each_element(op, dims, BiasGradient{groups, op.grad_b});
  launch_blocks(op, parts * ceil_div(model.hidden, unit_threads), unit_threads, 0, add_groups, model, groups, sums,
                notes, scratch.carve<float>(runs));
  for_each_element(op, matrix, AddParts{sums.w, parts, matrix, op.grad_w.data});
  for_each_element(op, matrix, AddParts{sums.v, parts, matrix, op.grad_v.data});
  for_each_element(op, model.hidden, AddParts{sums.c, parts, model.hidden, op.grad_c.data});
}

}  // namespace

void fill_nade_vjp(runtime::Table& table) { table.autoregressive.NadeLogProbVjp = nade_log_prob_vjp; }

}  // namespace gencore::cuda
