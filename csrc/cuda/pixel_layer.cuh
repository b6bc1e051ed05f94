// A layer of a stack, read from its row of the table, for those who plan launches by it.
#pragma once

#include <vector>

#include "common.cuh"
#include "gencore/pixels.h"
#include "math.cuh"

namespace gencore::cuda {

struct StackLayer {
  conv::Layer kind;
  conv::Mask mask;
  dense::Activation activation;
  std::int64_t src, src2, kh, kw, c_in, c_out, weight, bias;
  std::int64_t groups;

  StackLayer(const std::int64_t* row, std::int64_t groups)
      : kind(static_cast<conv::Layer>(row[conv::layer_kind])),
        mask(static_cast<conv::Mask>(row[conv::layer_mask])),
        activation(static_cast<dense::Activation>(row[conv::layer_activation])),
        src(row[conv::layer_src]),
        src2(row[conv::layer_src2]),
        kh(row[conv::layer_kh]),
        kw(row[conv::layer_kw]),
        c_in(row[conv::layer_c_in]),
        c_out(row[conv::layer_c_out]),
        weight(row[conv::layer_weight]),
        bias(row[conv::layer_bias]),
        groups(groups) {}

  bool convolves() const { return kind == conv::Layer::convolve; }
  // Whether a bias has a row for each class.
  bool has_class_bias(const conv::Stack& stack) const {
    return convolves() && bias >= 0 && stack.params[bias].size() != c_out;
  }
  bool reads(std::int64_t map) const { return src == map || (kind == conv::Layer::add && src2 == map); }
  template <class Op>
  void set_geometry(Op& op) const {
    op.pad_top = kh / 2;
    op.pad_left = kw / 2;
    op.mask = mask;
    op.channel_groups = groups;
  }
};

inline std::vector<StackLayer> layers_of(const conv::Stack& stack) {
  std::vector<StackLayer> layers;
  for (std::int64_t i = 0; i < stack.layers.shape[0]; ++i)
    layers.emplace_back(stack.layers.row(i), stack.channel_groups);
  return layers;
}

// The two halves of a colour's features in a gate's source.
struct Halves {
  std::int64_t colour;  // features of one that come out

  // Where the first half of feature i that comes out lies, of a pixel or of many; the second is `colour` further on.
  __device__ std::int64_t first(std::int64_t i) const {
    std::int64_t group, at;
    divide(i, colour, group, at);
    return 2 * group * colour + at;
  }
  __device__ float gated(const float* x, std::int64_t i) const {
    const std::int64_t a = first(i);
    return tanh(x[a]) * logistic(x[a + colour]);
  }
};

// Row `label` of a bias of classes, from its column `channel` on. A label that there is not, which nobody waits to know,
// makes NaN.
__device__ inline float class_bias(const float* bias, std::int64_t label, std::int64_t classes, std::int64_t channels,
                                   std::int64_t channel) {
  return label >= 0 && label < classes ? bias[label * channels + channel] : __builtin_nanf("");
}

}  // namespace gencore::cuda
