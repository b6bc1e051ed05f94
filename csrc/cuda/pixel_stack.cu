// Stacks of masked convolutions on whole images, forward and back: layer after layer over the batch, all maps in memory.
//
// The limit: memory, where features are few. A layer from 32 to 16 channels moves 192 bytes a pixel, 64 ps at 3 TB/s, and
// multiplies 512 times, 18 ps at 57 TFLOP/s; back both double, and a map's gradient is read and written again for each
// layer that reads the map. A layer is 1 launch forward and up to 7 back, 3 us each where the batch is too small to matter.
#include "activation.cuh"
#include "columns.cuh"
#include "conv_kernels.cuh"
#include "loss_kernels.cuh"
#include "pixel_layer.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using conv::Images;
using conv::Layer;

// --- layers of elements ---------------------------------------------------------------------------------------------------

struct Add {
  const float *x, *y;
  float* to;
  __device__ void operator()(std::int64_t i) const { to[i] = x[i] + y[i]; }
};

struct Relu {
  const float* x;
  float* to;
  __device__ void operator()(std::int64_t i) const { to[i] = x[i] > 0 ? x[i] : 0.0f; }
};

struct Gate {
  const float* x;
  Halves halves;
  float* to;
  __device__ void operator()(std::int64_t i) const { to[i] = halves.gated(x, i); }
};

// to = activation(to + the bias of the image's class).
struct ClassBias {
  const float* bias;
  const std::int64_t* labels;
  std::int64_t classes, channels, image_floats;
  dense::Activation activation;
  float* to;
  __device__ void operator()(std::int64_t i) const {
    std::int64_t image, at, pixel, channel;
    divide(i, image_floats, image, at);
    divide(at, channels, pixel, channel);
    to[i] = activated(activation, to[i] + class_bias(bias, labels[image], classes, channels, channel));
  }
};

// --- their gradients: given to a map, or added to what it has -----------------------------------------------------------------

struct Give {
  const float* part;
  float* to;
  bool add;
  __device__ void operator()(std::int64_t i) const { to[i] = add ? to[i] + part[i] : part[i]; }
};

struct GiveWherePositive {
  const float *y, *part;
  float* to;
  bool add;
  __device__ void operator()(std::int64_t i) const {
    const float passed = y[i] > 0 ? part[i] : 0.0f;
    to[i] = add ? to[i] + passed : passed;
  }
};

struct GiveThroughGate {
  const float *x, *grad;
  Halves halves;
  float* to;
  bool add;
  __device__ void operator()(std::int64_t i) const {
    const std::int64_t a = halves.first(i), b = a + halves.colour;
    const float t = tanh(x[a]), s = logistic(x[b]), g = grad[i];
    const float by_a = g * s * ((1.0f - t) * (1.0f + t)), by_b = g * t * (s * (1.0f - s));
    to[a] = add ? to[a] + by_a : by_a;
    to[b] = add ? to[b] + by_b : by_b;
  }
};

struct Slopes {
  dense::Activation activation;
  const float* y;
  float* grad;
  __device__ void operator()(std::int64_t i) const { grad[i] = slope(activation, grad[i], y[i]); }
};

// The same, and its sums over the pixels of each image: column n C + c, for for_each_column.
struct SlopesAndSums {
  dense::Activation activation;
  const float* y;
  float* grad;
  std::int64_t pixels, channels;
  double* sums;

  __device__ std::int64_t rows(std::int64_t) const { return pixels; }
  __device__ double term(std::int64_t pixel, std::int64_t column) const {
    std::int64_t image, channel;
    divide(column, channels, image, channel);
    const std::int64_t at = (image * pixels + pixel) * channels + channel;
    if (activation != dense::Activation::identity) grad[at] = slope(activation, grad[at], y[at]);
    return static_cast<double>(grad[at]);
  }
  __device__ void put(std::int64_t column, double total) const { sums[column] = total; }
};

// A bias's gradient from the sums of images: of all, or of those of each class.
struct AddImages {
  const double* sums;
  const std::int64_t* labels;  // nullptr: one bias for all
  std::int64_t images, channels;
  float* out;
  bool add;

  __device__ std::int64_t rows(std::int64_t) const { return images; }
  __device__ double term(std::int64_t image, std::int64_t column) const {
    std::int64_t label, channel;
    divide(column, channels, label, channel);
    return labels == nullptr || labels[image] == label ? sums[image * channels + channel] : 0.0;
  }
  __device__ void put(std::int64_t column, double total) const {
    out[column] = add ? out[column] + static_cast<float>(total) : static_cast<float>(total);
  }
};

struct Zero {
  float* to;
  __device__ void operator()(std::int64_t i) const { to[i] = 0; }
};

// --- forward -------------------------------------------------------------------------------------------------------------

// An op where another one runs.
template <class Op>
Op placed(const OpBase& other) {
  Op op;
  op.device = other.device;
  op.stream = other.stream;
  return op;
}

// A stack on a batch of images: its layers, and where the maps are.
template <class Op>
struct Run {
  const Op& op;
  std::vector<StackLayer> layers;
  std::vector<float*> maps;  // 0 is the images, the last one where the caller wants it
  std::int64_t images, height, width, colours;

  Run(const Op& op, const std::int64_t (&shape)[4])
      : op(op),
        layers(layers_of(op)),
        maps(layers.size() + 1),
        images(shape[0]),
        height(shape[1]),
        width(shape[2]),
        colours(shape[3]) {}

  std::int64_t count() const { return static_cast<std::int64_t>(layers.size()); }
  const StackLayer& layer(std::int64_t i) const { return layers[static_cast<std::size_t>(i)]; }
  float*& map(std::int64_t m) { return maps[static_cast<std::size_t>(m)]; }
  std::int64_t pixels() const { return images * height * width; }
  std::int64_t size(std::int64_t m) const { return pixels() * (m == 0 ? colours : layer(m - 1).c_out); }

  // Bytes of maps first .. last, one behind the other, and their places.
  std::size_t bytes(std::int64_t first, std::int64_t last) const {
    std::size_t total = 0;
    for (std::int64_t m = first; m <= last; ++m) total += DeviceScratch::bytes<float>(size(m));
    return total;
  }
  void place(DeviceScratch& scratch, std::int64_t first, std::int64_t last) {
    for (std::int64_t m = first; m <= last; ++m) map(m) = scratch.carve<float>(size(m));
  }

  template <class T>
  Images<T> image(T* data, std::int64_t channels) const {
    return {data, {images, height, width, channels}};
  }
  template <class T>
  static Images<T> kernel(T* data, const StackLayer& l) {
    return {data, {l.kh, l.kw, l.c_in, l.c_out}};
  }
  // A convolution's op, with what all three of them have.
  template <class Convolution>
  Convolution convolution(const StackLayer& l) const {
    auto c = placed<Convolution>(op);
    l.set_geometry(c);
    return c;
  }

  void forward() {
    for (std::int64_t i = 0; i < count(); ++i) forward(layer(i), map(i + 1), size(i + 1));
  }
  void forward(const StackLayer& l, float* to, std::int64_t floats) {
    const float* x = map(l.src);
    switch (l.kind) {
      case Layer::add: return for_each_element(op, floats, Add{x, map(l.src2), to});
      case Layer::relu: return for_each_element(op, floats, Relu{x, to});
      case Layer::gate: return for_each_element(op, floats, Gate{x, {l.c_out / l.groups}, to});
      case Layer::convolve: break;
    }
    auto c = convolution<conv::Conv2d>(l);
    c.x = image(x, l.c_in);
    c.w = kernel(op.params[l.weight].data, l);
    c.out = image(to, l.c_out);
    const bool of_class = l.has_class_bias(op);
    if (!of_class) {
      c.activation = l.activation;
      if (l.bias >= 0) c.bias = op.params[l.bias];
    }
    conv2d(c);
    if (!of_class) return;
    for_each_element(op, floats,
                     ClassBias{op.params[l.bias].data, op.labels.data, op.n_classes, l.c_out, height * width * l.c_out,
                               l.activation, to});
  }
};

void stack_forward(const conv::StackForward& op) {
  if (op.out.size() == 0) return;
  Run<conv::StackForward> run(op, op.x.shape);
  DeviceScratch scratch(op, run.bytes(1, run.count() - 1));
  run.place(scratch, 1, run.count() - 1);
  run.map(0) = const_cast<float*>(op.x.data);  // read only
  run.map(run.count()) = op.out.data;
  run.forward();
}

// --- back ----------------------------------------------------------------------------------------------------------------

// Gradients of maps and parameters: none, until something is given.
template <class Op>
class Back {
 public:
  static std::size_t bytes(const Run<Op>& run) {
    const Sizes sizes(run);
    return run.bytes(1, run.count()) + DeviceScratch::bytes<float>(sizes.map) +
           DeviceScratch::bytes<float>(sizes.parameter) + DeviceScratch::bytes<double>(sizes.sums);
  }
  Back(Run<Op>& run, DeviceScratch& scratch)
      : run_(run),
        op_(run.op),
        maps_(run.maps.size()),
        given_(run.maps.size()),
        parameter_given_(static_cast<std::size_t>(run.op.params.count)) {
    const Sizes sizes(run);
    for (std::int64_t m = 1; m <= run.count(); ++m) map(m) = scratch.carve<float>(run.size(m));
    spare_map_ = scratch.carve<float>(sizes.map);
    spare_parameter_ = scratch.carve<float>(sizes.parameter);
    sums_ = scratch.carve<double>(sizes.sums);
  }

  // Where the last map's gradient goes before run() begins.
  float* last() { return map(run_.count()); }

  void run() {
    given_.back() = true;
    for (std::int64_t i = run_.count() - 1; i >= 0; --i) {
      if (given(i + 1)) through(i);  // else nothing reads the map
    }
    for (std::int64_t k = 0; k < op_.params.count; ++k) {
      if (!take(k)) for_each_element(op_, op_.params[k].size(), Zero{op_.grads[k].data});
    }
  }

 private:
  struct Sizes {
    std::int64_t map = 0, parameter = 0, sums = 0;  // the largest
    explicit Sizes(const Run<Op>& run) {
      for (const StackLayer& l : run.layers) {
        const std::int64_t in = run.pixels() * l.c_in, sum = run.images * l.c_out;
        if (!l.convolves()) continue;
        map = in > map ? in : map;
        sums = sum > sums ? sum : sums;
      }
      for (std::int64_t k = 0; k < run.op.params.count; ++k) {
        const std::int64_t size = run.op.params[k].size();
        parameter = size > parameter ? size : parameter;
      }
    }
  };

  float*& map(std::int64_t m) { return maps_[static_cast<std::size_t>(m)]; }
  bool given(std::int64_t m) const { return given_[static_cast<std::size_t>(m)]; }
  // Whether map m has a gradient already; from now on it has.
  bool take_map(std::int64_t m) {
    const bool before = given(m);
    given_[static_cast<std::size_t>(m)] = true;
    return before;
  }
  bool take(std::int64_t parameter) {
    const bool before = parameter_given_[static_cast<std::size_t>(parameter)];
    parameter_given_[static_cast<std::size_t>(parameter)] = true;
    return before;
  }

  void through(std::int64_t i) {
    const StackLayer& l = run_.layer(i);
    const std::int64_t floats = run_.size(i + 1);
    const float* y = run_.map(i + 1);
    float* grad = map(i + 1);
    switch (l.kind) {
      case Layer::convolve:
        through_activation(l, y, grad, floats);
        through_weight(l, grad);
        if (l.src != 0) through_input(l, grad);
        return;
      case Layer::gate:
        if (l.src == 0) return;
        return for_each_element(
            op_, floats, GiveThroughGate{run_.map(l.src), grad, {l.c_out / l.groups}, map(l.src), take_map(l.src)});
      case Layer::relu:
        if (l.src == 0) return;
        return for_each_element(op_, floats, GiveWherePositive{y, grad, map(l.src), take_map(l.src)});
      case Layer::add: return through_sum(l, i + 1, floats);
    }
  }
  // One part gets the sum's gradient; the other its memory, if it has none of its own yet: the sum is done with.
  void through_sum(const StackLayer& l, std::int64_t sum, std::int64_t floats) {
    if (l.src2 != 0) for_each_element(op_, floats, Give{map(sum), map(l.src2), take_map(l.src2)});
    if (l.src == 0) return;
    if (take_map(l.src)) {
      for_each_element(op_, floats, Give{map(sum), map(l.src), true});
    } else {
      std::swap(map(sum), map(l.src));
    }
  }

  // dz = grad activation'(y), in place, and the bias's gradient.
  void through_activation(const StackLayer& l, const float* y, float* grad, std::int64_t floats) {
    if (l.bias < 0) {
      if (l.activation != dense::Activation::identity) for_each_element(op_, floats, Slopes{l.activation, y, grad});
      return;
    }
    for_each_column(op_, run_.images * l.c_out,
                    SlopesAndSums{l.activation, y, grad, run_.height * run_.width, l.c_out, sums_});
    const std::int64_t* labels = l.has_class_bias(op_) ? op_.labels.data : nullptr;
    for_each_column(op_, op_.params[l.bias].size(),
                    AddImages{sums_, labels, run_.images, l.c_out, op_.grads[l.bias].data, take(l.bias)});
  }
  void through_weight(const StackLayer& l, const float* dz) {
    const std::int64_t size = op_.params[l.weight].size();
    const bool shared = take(l.weight);  // by a layer that has been here
    float* to = op_.grads[l.weight].data;
    auto c = run_.template convolution<conv::Conv2dWeight>(l);
    c.x = run_.image(static_cast<const float*>(run_.map(l.src)), l.c_in);
    c.grad = run_.image(dz, l.c_out);
    c.out = run_.kernel(shared ? spare_parameter_ : to, l);
    conv2d_weight(c);
    if (shared) for_each_element(op_, size, Give{spare_parameter_, to, true});
  }
  void through_input(const StackLayer& l, const float* dz) {
    const bool add = take_map(l.src);
    auto c = run_.template convolution<conv::Conv2dInput>(l);
    c.grad = run_.image(dz, l.c_out);
    c.w = run_.kernel(op_.params[l.weight].data, l);
    c.out = run_.image(add ? spare_map_ : map(l.src), l.c_in);
    conv2d_input(c);
    if (add) for_each_element(op_, run_.pixels() * l.c_in, Give{spare_map_, map(l.src), true});
  }

  Run<Op>& run_;
  const Op& op_;
  std::vector<float*> maps_;
  std::vector<bool> given_, parameter_given_;
  float *spare_map_, *spare_parameter_;
  double* sums_;
};

// A batch without pixels.
template <class Op>
void no_gradients(const Op& op) {
  for (std::int64_t k = 0; k < op.params.count; ++k) {
    for_each_element(op, op.params[k].size(), Zero{op.grads[k].data});
  }
}

void stack_vjp(const conv::StackVjp& op) {
  Run<conv::StackVjp> run(op, op.x.shape);
  const std::int64_t n = run.count();
  if (run.pixels() == 0) return no_gradients(op);
  DeviceScratch scratch(op, run.bytes(1, n) + Back<conv::StackVjp>::bytes(run));
  run.place(scratch, 1, n);
  Back<conv::StackVjp> back(run, scratch);
  run.map(0) = const_cast<float*>(op.x.data);  // read only
  run.forward();
  for_each_element(op, run.size(n), Give{op.grad.data, back.last(), false});
  back.run();
}

// --- log-probabilities -----------------------------------------------------------------------------------------------------

// Map 0. A level that there is not, which nobody waits to know, makes NaN.
struct Scaled {
  const std::uint8_t* level;
  std::int64_t levels;
  float unit;
  float* to;
  __device__ void operator()(std::int64_t i) const {
    to[i] = level[i] < levels ? static_cast<float>(level[i]) * unit : nan_value;
  }
};

// What the softmax of a unit is told: its level, and the negative slope of its image.
struct OfUnits {
  const std::uint8_t* level;
  const float* grad;
  std::int64_t units;  // of an image
  std::int64_t* labels;
  float* slopes;
  __device__ void operator()(std::int64_t i) const {
    std::int64_t image, unit;
    divide(i, units, image, unit);
    labels[i] = level[i];
    slopes[i] = -grad[image];
  }
};

struct MinusCosts {
  const float* costs;
  std::int64_t units;
  float* out;
  __device__ void operator()(const Team& team, std::int64_t image, bool exists) const {
    double total = 0;
    for (std::int64_t u = team.rank; exists && u < units; u += team.size) {
      total += static_cast<double>(costs[image * units + u]);
    }
    total = team.sum(total);
    if (exists && team.rank == 0) out[image] = static_cast<float>(-total);
  }
};

// out, and the gradient of <grad, out> for the last map, from that map.
class Likelihood {
 public:
  Likelihood(const conv::StackLogProbVjp& op, std::int64_t units)
      : op_(op), units_(units), each_(conv::detail::logits_of(op.levels, op.n_mixtures)) {}

  bool is_softmax() const { return op_.n_mixtures == 0 && op_.levels > 2; }
  std::size_t bytes() const {
    const std::int64_t n = is_softmax() ? op_.images.size() : 0;
    return DeviceScratch::bytes<std::int64_t>(n) + 2 * DeviceScratch::bytes<float>(n);
  }
  void compute(const float* image, const float* last, float* grad_last, DeviceScratch& scratch) const {
    if (op_.n_mixtures > 0) return mixture(last, grad_last);
    is_softmax() ? softmax(last, grad_last, scratch) : bits(image, last, grad_last);
  }

 private:
  std::int64_t images() const { return op_.images.shape[0]; }
  void mixture(const float* last, float* grad_last) const {
    const auto set = [&](auto& op) {
      op.params = {last, {images(), units_ * each_}};
      op.x = {op_.images.data, {images(), units_}};
      op.levels = op_.levels;
      op.n_mixtures = op_.n_mixtures;
    };
    auto forward = placed<dense::LogisticMixtureLogProb>(op_);
    set(forward);
    forward.out = op_.out;
    logistic_mixture_log_prob(forward);
    auto back = placed<dense::LogisticMixtureLogProbVjp>(op_);
    set(back);
    back.grad = op_.grad;
    back.grad_params = {grad_last, {images(), units_ * each_}};
    logistic_mixture_log_prob_vjp(back);
  }
  // Map 0 holds the bits.
  void bits(const float* image, const float* last, float* grad_last) const {
    const Matrix<const float> logits{last, {images(), units_}}, targets{image, {images(), units_}};
    auto forward = placed<dense::BernoulliLogProb>(op_);
    forward.logits = logits;
    forward.targets = targets;
    forward.out = op_.out;
    bernoulli_log_prob(forward);
    auto back = placed<dense::BernoulliLogProbVjp>(op_);
    back.grad = op_.grad;
    back.logits = logits;
    back.targets = targets;
    back.grad_logits = {grad_last, {images(), units_}};
    bernoulli_log_prob_vjp(back);
  }
  void softmax(const float* last, float* grad_last, DeviceScratch& scratch) const {
    const std::int64_t n = images() * units_;
    auto* labels = scratch.carve<std::int64_t>(n);
    auto *costs = scratch.carve<float>(n), *slopes = scratch.carve<float>(n);
    for_each_element(op_, n, OfUnits{op_.images.data, op_.grad.data, units_, labels, slopes});
    auto forward = placed<dense::SoftmaxCrossEntropy>(op_);
    forward.logits = {last, {n, each_}};
    forward.labels = {labels, {n}};
    forward.out = {costs, {n}};
    softmax_cross_entropy(forward);
    for_each_row(op_, images(), units_, MinusCosts{costs, units_, op_.out.data});
    auto back = placed<dense::SoftmaxCrossEntropyVjp>(op_);
    back.grad = {slopes, {n}};
    back.logits = forward.logits;
    back.labels = forward.labels;
    back.grad_logits = {grad_last, {n, each_}};
    softmax_cross_entropy_vjp(back);
  }

  const conv::StackLogProbVjp& op_;
  std::int64_t units_, each_;
};

void stack_log_prob_vjp(const conv::StackLogProbVjp& op) {
  Run<conv::StackLogProbVjp> run(op, op.images.shape);
  const std::int64_t n = run.count();
  if (run.pixels() * run.colours == 0) {
    for_each_element(op, op.out.size(), Zero{op.out.data});
    return no_gradients(op);
  }
  const Likelihood likelihood(op, run.height * run.width * run.colours);
  DeviceScratch scratch(op, run.bytes(0, n) + Back<conv::StackLogProbVjp>::bytes(run) + likelihood.bytes());
  run.place(scratch, 0, n);
  Back<conv::StackLogProbVjp> back(run, scratch);
  const float unit = 1.0f / static_cast<float>(op.levels - 1);
  for_each_element(op, op.images.size(), Scaled{op.images.data, op.levels, unit, run.map(0)});
  run.forward();
  likelihood.compute(run.map(0), run.map(n), back.last(), scratch);
  back.run();
}

}  // namespace

void fill_pixel_stack(runtime::Table& table) {
  table.conv.StackForward = stack_forward;
  table.conv.StackVjp = stack_vjp;
  table.conv.StackLogProbVjp = stack_log_prob_vjp;
}

}  // namespace gencore::cuda
