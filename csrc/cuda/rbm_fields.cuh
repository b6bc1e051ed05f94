// The fields of one side of the machine by the product of gemm.cuh.
#pragma once

#include "gemm.cuh"
#include "rbm_machine.cuh"

namespace gencore::cuda {

// epilogue(row, first unit, sums), as multiply's, of the side that a layer computes.
template <class Op, class Epilogue>
void multiply_layer(const Op& op, const rbm::Layer& layer, const Epilogue& epilogue) {
  const std::int64_t n = layer.states.shape[0], in = layer.states.shape[1];
  const std::int64_t units = layer.w.shape[layer.visible ? 0 : 1];
  multiply(op, layer.states, false, Factor<float>::of(layer.w.data, layer.w.shape[1], layer.visible),
           Size{n, units, in}, epilogue);
}

__device__ inline float state_value(const ConstStates& s, std::int64_t row, std::int64_t unit) {
  const std::int64_t at = row * s.shape[1] + unit;
  return s.type == StateType::u8 ? to_float(static_cast<const std::uint8_t*>(s.data)[at])
                                 : static_cast<const float*>(s.data)[at];
}

static_assert(tile_columns == group_units && tile_side == draw_stride);  // a thread's columns are UnitDraws

// fields = c + v w.
struct HiddenFields {
  Vector<const float> c;
  float* fields;

  __device__ void operator()(std::int64_t row, std::int64_t first, const float (&sum)[tile_units]) const {
#pragma unroll
    for (int i = 0; i < tile_units; ++i) {
      const std::int64_t unit = first + tile_side * i;
      if (unit < c.shape[0]) fields[row * c.shape[0] + unit] = sum[i] + c[unit];
    }
  }
};

template <class Op>
std::size_t fields_bytes(const Op& op) {
  return DeviceScratch::bytes<float>(op.v.shape[0] * op.w.shape[1]);
}

// (n, n_hidden), of an op with parameters and visible states.
template <class Op>
const float* hidden_fields(const Op& op, DeviceScratch& scratch) {
  float* fields = scratch.carve<float>(op.v.shape[0] * op.w.shape[1]);
  multiply(op, op.v, false, Factor<float>::of(op.w.data, op.w.shape[1], false),
           Size{op.v.shape[0], op.w.shape[1], op.w.shape[0]}, HiddenFields{op.c, fields});
  return fields;
}

}  // namespace gencore::cuda
