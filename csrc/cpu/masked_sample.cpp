// Ancestral sampling from stacks of masked layers. Rows are lanes; a hidden unit is computed when the first unit that sees
// it is asked for, so that one forward pass is all that a row costs.
//
// The limit: the multiply-adds of that pass. Four units by degree are summed together as far as the first of them sees,
// so that what is loaded is used four times; the few inputs that the others see besides are added when they are known. Each
// sum is still one chain over ascending inputs. 100 rows of 784-500-784 with degrees spread evenly: 39 M multiply-adds.
#include "gencore/masked_sample.h"

#include "../runtime/reject.h"
#include "../runtime/table.h"
#include "activation.h"
#include "staircase.h"
#include "transpose.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using autoregressive::Degrees;
using autoregressive::MaskedSample;

#if defined(GENCORE_AVX512)
constexpr int most_parts = 4;  // vectors of rows of a task
#else
constexpr int most_parts = 2;
#endif
constexpr int units_together = 4;

// A layer with its weights by unit: what the unit sees, by ascending degree, side by side.
struct SampledLayer {
  Staircase stairs;
  const float* bias;
  float* weights;
  std::int64_t inputs;

  static std::size_t bytes(const Degrees& degrees) {
    const std::int64_t k = degrees.in_degree.shape[0], n = degrees.out_degree.shape[0];
    return Staircase::bytes(degrees) + 4 * static_cast<std::size_t>(k * n) + 64;
  }
  SampledLayer(Scratch& scratch, const Degrees& degrees, const float* w, const float* b)
      : stairs(scratch, degrees),
        bias(b),
        weights(scratch.carve<float>(static_cast<std::size_t>(stairs.in.size() * stairs.out.size()))),
        inputs(stairs.in.size()) {
    parallel_for(ceil_div(inputs, lanes),
                 [&](std::int64_t task) { pack(w, task * lanes, min_of(inputs, task * lanes + lanes)); });
  }

 private:
  // The weights of inputs [begin, end), one vector of them at most, for the units that see the first.
  void pack(const float* w, std::int64_t begin, std::int64_t end) {
    const std::int64_t k = inputs, n = stairs.out.size();
    std::int64_t j = stairs.seen_by[begin];
    const bool in_order = stairs.in.in_order() && stairs.out.in_order();
    for (; in_order && end - begin == lanes && j + load_depth <= n; j += load_depth) {
      F v[load_depth];
      load_columns(w + begin * n + j, n, v);
      GENCORE_UNROLL
      for (int q = 0; q < load_depth; ++q) store(weights + (j + q) * k + begin, v[q]);
    }
    for (; j < n; ++j) {
      for (std::int64_t i = begin; i < end; ++i) weights[j * k + i] = w[stairs.in[i] * n + stairs.out[j]];
    }
  }
};

Degrees degrees_of(const MaskedSample& op, std::int64_t layer) {
  const bool last = layer + 1 == op.degrees.count;
  return {op.degrees[layer], op.degrees[last ? 0 : layer + 1], last};
}
Degrees degrees_of_direct(const MaskedSample& op) { return {op.degrees[0], op.degrees[0], true}; }

// The last layer puts out logits. Beside it the direct connections, if there are any.
struct SampledNet {
  SampledLayer* layers;
  const SampledLayer* direct = nullptr;
  std::int64_t count, units = 0;  // of dimensions and hidden layers together

  static std::size_t bytes(const MaskedSample& op) {
    std::size_t total = static_cast<std::size_t>(op.degrees.count + 1) * sizeof(SampledLayer) + 128;
    for (std::int64_t l = 0; l < op.degrees.count; ++l) total += SampledLayer::bytes(degrees_of(op, l));
    return total + (op.direct.given() ? SampledLayer::bytes(degrees_of_direct(op)) : 0);
  }
  SampledNet(Scratch& scratch, const MaskedSample& op)
      : layers(scratch.carve<SampledLayer>(static_cast<std::size_t>(op.degrees.count + 1))), count(op.degrees.count) {
    for (std::int64_t l = 0; l < count; ++l) {
      layers[l] = SampledLayer(scratch, degrees_of(op, l), op.weights[l].data, op.biases[l].data);
      units += op.degrees[l].shape[0];
    }
    if (op.direct.given()) {
      layers[count] = SampledLayer(scratch, degrees_of_direct(op), op.direct.data, nullptr);
      direct = layers + count;
    }
  }

  // The first dimension, by degree, whose logit needs one that is not drawn before it; -1 if there is none.
  std::int64_t first_that_looks_ahead() const {
    for (std::int64_t t = 0; t < layers[count - 1].stairs.out.size(); ++t) {
      std::int64_t needed = layers[count - 1].stairs.seen[t];  // of the layer before: the last one needs most
      for (std::int64_t l = count - 2; l >= 0 && needed > 0; --l) needed = layers[l].stairs.seen[needed - 1];
      if (needed > t) return t;
    }
    return -1;
  }
};

// Some rows, side by side in Parts vectors.
template <int Parts>
class RowsOfNet {
 public:
  static std::size_t bytes(const SampledNet& net) {
    const std::int64_t floats = (net.units + (net.count + 1) * units_together) * Parts * lanes;
    return 4 * static_cast<std::size_t>(floats) + 24 * static_cast<std::size_t>(net.count) + 256;
  }
  RowsOfNet(Scratch& scratch, const SampledNet& net)
      : net_(net),
        values_(scratch.carve<float*>(static_cast<std::size_t>(net.count))),
        ready_(scratch.carve<std::int64_t>(static_cast<std::size_t>(net.count))) {
    begun_ = scratch.carve<float>(static_cast<std::size_t>((net.count + 1) * units_together * Parts * lanes));
    float* next = scratch.carve<float>(static_cast<std::size_t>(net.units * Parts * lanes));
    for (std::int64_t l = 0; l < net.count; ++l) {
      values_[l] = next;
      ready_[l] = 0;
      next += net.layers[l].inputs * Parts * lanes;
    }
  }

  // Logits of the dimension that is t-th by degree, given those before it.
  GENCORE_INLINE void logits(std::int64_t t, F (&sums)[Parts]) {
    const SampledLayer& last = net_.layers[net_.count - 1];
    compute(net_.count - 1, last.stairs.seen[t]);
    sum(net_.count - 1, last, values_[net_.count - 1], t, sums);
    const float bias = last.bias[last.stairs.out[t]];
    GENCORE_UNROLL
    for (int p = 0; p < Parts; ++p) sums[p] += splat(bias);
    if (net_.direct == nullptr) return;
    F more[Parts];
    sum(net_.count, *net_.direct, values_[0], t, more);
    GENCORE_UNROLL
    for (int p = 0; p < Parts; ++p) sums[p] += more[p];
  }
  // Where the draws of that dimension go.
  GENCORE_INLINE float* drawn(std::int64_t t) const { return values_[0] + t * Parts * lanes; }

  dense::Activation activation = dense::Activation::identity;

 private:
  // The first `wanted` inputs of a layer, which the layer before it puts out.
  void compute(std::int64_t l, std::int64_t wanted) {
    if (l == 0 || ready_[l] >= wanted) return;  // dimensions are drawn by now
    const SampledLayer& layer = net_.layers[l - 1];
    compute(l - 1, layer.stairs.seen[wanted - 1]);
    for (std::int64_t j = ready_[l]; j < wanted; ++j) {
      F sums[Parts];
      sum(l - 1, layer, values_[l - 1], j, sums);
      with_epilogue(activation, layer.bias + layer.stairs.out[j], 1, false, [&](const auto& epilogue) {
        for (int p = 0; p < Parts; ++p) store(values_[l] + (j * Parts + p) * lanes, epilogue(sums[p], 0));
      });
    }
    ready_[l] = wanted;
  }
  // Inputs [begin, end) of Units units from j on, added to their sums.
  template <int Units>
  static GENCORE_INLINE void add(const SampledLayer& layer, const float* values, std::int64_t j, std::int64_t begin,
                                 std::int64_t end, F (&sums)[Units][Parts]) {
    const float* w = layer.weights + j * layer.inputs;
    values += begin * Parts * lanes;
    for (std::int64_t i = begin; i < end; ++i, values += Parts * lanes) {
      F x[Parts];
      GENCORE_UNROLL
      for (int p = 0; p < Parts; ++p) x[p] = load(values + p * lanes);
      GENCORE_UNROLL
      for (int u = 0; u < Units; ++u) {
        const F weight = splat(w[u * layer.inputs + i]);
        GENCORE_UNROLL
        for (int p = 0; p < Parts; ++p) sums[u][p] = fma(x[p], weight, sums[u][p]);
      }
    }
  }
  // What unit j of a layer sums. Units are asked for one after another: the first of four begins the sums of all.
  GENCORE_INLINE void sum(std::int64_t l, const SampledLayer& layer, const float* values, std::int64_t j,
                          F (&sums)[Parts]) {
    float* begun = begun_ + l * units_together * Parts * lanes;
    const std::int64_t first = j / units_together * units_together, common = layer.stairs.seen[first];
    F one[1][Parts] = {};
    if (first + units_together > layer.stairs.out.size()) {  // the last ones, alone
      add(layer, values, j, 0, layer.stairs.seen[j], one);
    } else {
      if (j == first) {
        F all[units_together][Parts] = {};
        add(layer, values, first, 0, common, all);
        GENCORE_UNROLL
        for (int i = 0; i < units_together * Parts; ++i) store(begun + i * lanes, all[i / Parts][i % Parts]);
      }
      GENCORE_UNROLL
      for (int p = 0; p < Parts; ++p) one[0][p] = load(begun + ((j - first) * Parts + p) * lanes);
      add(layer, values, j, common, layer.stairs.seen[j], one);
    }
    GENCORE_UNROLL
    for (int p = 0; p < Parts; ++p) sums[p] = one[0][p];
  }

  const SampledNet& net_;
  float** values_;
  std::int64_t* ready_;
  float* begun_;  // by layer, and behind them of the direct connections
};

const std::uint8_t* row_of(const Matrix<const std::uint8_t>& known, std::int64_t r) {
  return known.row(known.shape[0] == 1 ? 0 : r);
}

struct Wrong {  // NaN
  Flag logits, noise;
};

template <int Parts>
void sample_rows(const MaskedSample& op, const SampledNet& net, std::int64_t first, std::int64_t rows, Wrong& wrong) {
  Scratch scratch(RowsOfNet<Parts>::bytes(net));
  RowsOfNet<Parts> side_by_side(scratch, net);
  side_by_side.activation = op.activation;
  const ByDegree& order = net.layers[0].stairs.in;
  for (std::int64_t t = 0; t < order.size(); ++t) {
    const std::int64_t d = order[t];
    F logits[Parts];
    side_by_side.logits(t, logits);
    float* drawn = side_by_side.drawn(t);
    GENCORE_UNROLL
    for (int p = 0; p < Parts; ++p) store(drawn + p * lanes, logits[p]);
    for (std::int64_t r = 0; r < rows; ++r) {
      const float noise = op.noise.row(first + r)[d];
      if (drawn[r] != drawn[r]) wrong.logits.raise();
      bool one = noise < drawn[r];
      if (op.mask.given() && row_of(op.mask, first + r)[d] != 0) {
        one = row_of(op.given, first + r)[d] != 0;
      } else if (noise != noise) {
        wrong.noise.raise();
      }
      op.out.row(first + r)[d] = one ? 1 : 0;
      drawn[r] = one ? 1.0f : 0.0f;
    }
    for (std::int64_t r = rows; r < Parts * lanes; ++r) drawn[r] = 0;
  }
}

// Some logit is NaN: names what is not finite.
void reject_parameters(const MaskedSample& op) {
  for (std::int64_t l = 0; l < op.weights.count; ++l) {
    check::finite(MaskedSample::name, "biases", op.biases[l].data, op.biases[l].size());
  }
  check::finite(MaskedSample::name, "direct", op.direct.data, op.direct.size());
  runtime::reject_overflow(MaskedSample::name, "weights");
}

void masked_sample(const MaskedSample& op) {
  const std::int64_t n = op.out.shape[0];
  Scratch scratch(SampledNet::bytes(op));
  const SampledNet net(scratch, op);
  const std::int64_t ahead = net.first_that_looks_ahead();
  if (ahead >= 0) runtime::reject_degrees(MaskedSample::name, "degrees", net.layers[0].stairs.in[ahead]);
  Wrong wrong;
  constexpr std::int64_t most = most_parts * lanes;
  parallel_for(ceil_div(n, most), [&](std::int64_t task) {
    const std::int64_t first = task * most, rows = min_of(most, n - first);
    if (rows <= lanes) return sample_rows<1>(op, net, first, rows, wrong);
    if (rows <= 2 * lanes) return sample_rows<2>(op, net, first, rows, wrong);
    sample_rows<most_parts>(op, net, first, rows, wrong);
  });
  if (wrong.logits.raised != 0) reject_parameters(op);
  if (wrong.noise.raised != 0) {
    runtime::reject_not_finite(MaskedSample::name, "noise", op.noise.data, op.noise.size());
  }
}

}  // namespace

void fill_masked_sample(runtime::Table& table) { table.autoregressive.MaskedSample = masked_sample; }

}  // namespace gencore::GENCORE_LEVEL
