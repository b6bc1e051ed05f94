// A restricted Boltzmann machine as the chains' kernels hold it: its weights in both orientations, padded with zeros to
// whole groups of columns and whole steps of rows, so that inner loops have no ends to mind.
#pragma once

#include "gencore/rbm.h"
#include "rbm_draw.cuh"

namespace gencore::cuda {

constexpr int step_rows = 8;  // rows of weights that a loop takes at a time

GENCORE_INLINE std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// What one side of the machine is computed from: x_j = bias_j + sum_i s_i w_ij.
struct Direction {
  const float* w;  // (rows, stride): given units, padded to step_rows; computed units, padded to groups
  std::int64_t given, units, stride;
  const float* bias;  // (units,)

  __device__ float bias_of(std::int64_t unit) const { return unit < units ? bias[unit] : 0.0f; }
};

struct Machine {
  Direction to_hidden, to_visible;

  static std::int64_t floats(std::int64_t given, std::int64_t units) {
    return round_up(given, step_rows) * round_up(units, group_units);
  }
  static std::size_t bytes(const rbm::Parameters& op) {
    const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
    return DeviceScratch::bytes<float>(floats(n_visible, n_hidden)) +
           DeviceScratch::bytes<float>(floats(n_hidden, n_visible));
  }
};

constexpr int square = 32;  // side of the squares of weights that a block turns

// One square of w into both orientations, each coalesced, by a block.
struct PackWeights {
  Matrix<const float> w;
  float *to_hidden, *to_visible;

  __device__ void operator()() const {
    __shared__ float turned[square][square + 1];
    const std::int64_t n_visible = w.shape[0], n_hidden = w.shape[1];
    const std::int64_t hidden_stride = round_up(n_hidden, group_units),
                       visible_stride = round_up(n_visible, group_units);
    const std::int64_t across = hidden_stride / square;
    const std::int64_t i0 = blockIdx.x / across * square, j0 = blockIdx.x % across * square;
    const int x = static_cast<int>(threadIdx.x) % square, y = static_cast<int>(threadIdx.x) / square;
    for (int r = y; r < square; r += block_threads / square) {
      const std::int64_t i = i0 + r, j = j0 + x;
      const float v = i < n_visible && j < n_hidden ? w.row(i)[j] : 0.0f;
      turned[r][x] = v;
      if (i < round_up(n_visible, step_rows)) to_hidden[i * hidden_stride + j] = v;
    }
    __syncthreads();
    for (int r = y; r < square; r += block_threads / square) {
      const std::int64_t i = i0 + x, j = j0 + r;
      if (j < round_up(n_hidden, step_rows)) to_visible[j * visible_stride + i] = turned[x][r];
    }
  }
};

template <class Op>
Machine pack_machine(const Op& op, DeviceScratch& scratch) {
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  float* to_hidden = scratch.carve<float>(Machine::floats(n_visible, n_hidden));
  float* to_visible = scratch.carve<float>(Machine::floats(n_hidden, n_visible));
  const std::int64_t squares = round_up(n_visible, group_units) / square * (round_up(n_hidden, group_units) / square);
  for_each_block(op, squares, PackWeights{op.w, to_hidden, to_visible});
  return {{to_hidden, n_visible, n_hidden, round_up(n_hidden, group_units), op.c.data},
          {to_visible, n_hidden, n_visible, round_up(n_visible, group_units), op.b.data}};
}

// Whether a unit is on; whatever is not 0 is.
__device__ inline bool is_on(const ConstStates& s, std::int64_t row, std::int64_t unit) {
  const std::int64_t at = row * s.shape[1] + unit;
  return s.type == StateType::u8 ? static_cast<const std::uint8_t*>(s.data)[at] != 0
                                 : static_cast<const float*>(s.data)[at] != 0.0f;
}
__device__ inline void put_state(const States& s, std::int64_t row, std::int64_t unit, bool on) {
  const std::int64_t at = row * s.shape[1] + unit;
  if (s.type == StateType::u8) {
    static_cast<std::uint8_t*>(s.data)[at] = on;
  } else {
    static_cast<float*>(s.data)[at] = static_cast<float>(on);
  }
}

}  // namespace gencore::cuda
