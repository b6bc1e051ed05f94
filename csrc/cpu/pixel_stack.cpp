// Stacks of masked convolutions on whole images, forward and back, image by image: maps stay in the caches of a core, and
// nothing of the size of a batch's map is ever in memory.
//
// The limit: the products, two multiply-adds an instruction and lane: forward once, back two times, and forward again to
// have the maps. A map written to memory and read again by every layer would cost as much as its products where it has
// 16 channels.
#include "../runtime/table.h"
#include "activation.h"
#include "conv_kernels.h"
#include "gate.h"
#include "gencore/pixels.h"
#include "loss_kernels.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using conv::Images;
using conv::Layer;
using runtime::Scratch;

constexpr std::int64_t image_groups = 16;  // whose gradients are summed apart

// One layer, read from its row of the table.
struct Row {
  const std::int64_t* l;
  std::int64_t groups;
  std::int64_t label;  // of the image

  Layer kind() const { return static_cast<Layer>(l[conv::layer_kind]); }
  std::int64_t src() const { return l[conv::layer_src]; }
  std::int64_t src2() const { return l[conv::layer_src2]; }
  std::int64_t c_in() const { return l[conv::layer_c_in]; }
  std::int64_t c_out() const { return l[conv::layer_c_out]; }
  std::int64_t weight() const { return l[conv::layer_weight]; }
  std::int64_t bias() const { return l[conv::layer_bias]; }
  dense::Activation activation() const { return static_cast<dense::Activation>(l[conv::layer_activation]); }
  // Where a bias, or its gradient, has the row of the image's class.
  template <class T>
  T* of_class(T* data, std::int64_t size) const {
    return size == c_out() ? data : data + label * c_out();
  }
  // A product of pixels and weights.
  bool is_product() const {
    const auto mask = static_cast<conv::Mask>(l[conv::layer_mask]);
    return l[conv::layer_kh] == 1 && l[conv::layer_kw] == 1 &&
           (mask == conv::Mask::none || mask == conv::Mask::to_this_row ||
            (mask == conv::Mask::to_here && groups == 1));
  }
  template <class Op>
  void set_geometry(Op& op) const {
    op.pad_top = l[conv::layer_kh] / 2;
    op.pad_left = l[conv::layer_kw] / 2;
    op.mask = static_cast<conv::Mask>(l[conv::layer_mask]);
    op.channel_groups = groups;
  }
  template <class T>
  Images<T> kernel(T* data) const {
    return {data, {l[conv::layer_kh], l[conv::layer_kw], c_in(), c_out()}};
  }
};

// The maps of one image; map 0 is the image, the last one where the caller wants it.
struct Maps {
  float** map;
  std::int64_t height, width;

  std::int64_t pixels() const { return height * width; }
  template <class T>
  Images<T> image(T* data, std::int64_t channels) const {
    return {data, {1, height, width, channels}};
  }
};

// The sum of two maps and its positive part, which mostly follows it, in one pass.
void add_then_relu(const Row& add, const Maps& maps, float* sum, float* positive) {
  const float *x = maps.map[add.src()], *y = maps.map[add.src2()];
  const std::int64_t size = maps.pixels() * add.c_out();
  for (std::int64_t i = 0; i < size; ++i) {
    const float value = x[i] + y[i];
    sum[i] = value;
    positive[i] = value > 0 ? value : 0.0f;
  }
}

void forward(const Row& row, const VectorList<const float>& params, const Maps& maps, float* to) {
  const float* x = maps.map[row.src()];
  const std::int64_t size = maps.pixels() * row.c_out();
  if (row.kind() == Layer::add) {
    const float* y = maps.map[row.src2()];
    for (std::int64_t i = 0; i < size; ++i) to[i] = x[i] + y[i];
    return;
  }
  if (row.kind() == Layer::relu) {
    for (std::int64_t i = 0; i < size; ++i) to[i] = x[i] > 0 ? x[i] : 0.0f;
    return;
  }
  if (row.kind() == Layer::gate) {
    const std::int64_t colour = row.c_out() / row.groups;
    for (std::int64_t i = 0; i < size; i += colour) gate(x + 2 * i, colour, to + i);
    return;
  }
  const float *w = params[row.weight()].data, *bias = nullptr;
  if (row.bias() >= 0) bias = row.of_class(params[row.bias()].data, params[row.bias()].size());
  if (row.is_product()) {
    with_epilogue(row.activation(), bias, row.c_out(), true, [&](const auto& epilogue) {
      gemm(maps.pixels(), row.c_out(), row.c_in(), x, row.c_in(), 1, w, row.c_out(), 1, to, row.c_out(), epilogue);
    });
    return;
  }
  conv::Conv2d op;
  op.x = maps.image(x, row.c_in());
  op.w = row.kernel(w);
  if (bias != nullptr) op.bias = {bias, {row.c_out()}};
  op.out = maps.image(to, row.c_out());
  op.activation = row.activation();
  row.set_geometry(op);
  conv2d(op);
}

// All layers, for one image.
void forward(const conv::Stack& stack, std::int64_t image, const Maps& maps) {
  const std::int64_t n = stack.layers.shape[0], label = stack.labels.given() ? stack.labels[image] : 0;
  const auto row = [&](std::int64_t i) { return Row{stack.layers.row(i), stack.channel_groups, label}; };
  for (std::int64_t i = 0; i < n; ++i) {
    const bool relu_next = i + 1 < n && row(i + 1).kind() == Layer::relu && row(i + 1).src() == i + 1;
    if (row(i).kind() == Layer::add && relu_next) {
      add_then_relu(row(i), maps, maps.map[i + 1], maps.map[i + 2]);
      ++i;
    } else {
      forward(row(i), stack.params, maps, maps.map[i + 1]);
    }
  }
}

// Floats of all maps but the image's and the last one's.
std::int64_t map_floats(const Matrix<const std::int64_t>& layers, std::int64_t pixels) {
  std::int64_t total = 0;
  for (std::int64_t i = 0; i + 1 < layers.shape[0]; ++i)
    total += round_up(layers.row(i)[conv::layer_c_out] * pixels, 16);
  return total;
}

// Cuts memory into the maps between the image and the last.
void place_maps(const Matrix<const std::int64_t>& layers, std::int64_t pixels, float* memory, float** map) {
  for (std::int64_t i = 0; i + 1 < layers.shape[0]; ++i) {
    map[i + 1] = memory;
    memory += round_up(layers.row(i)[conv::layer_c_out] * pixels, 16);
  }
}

void stack_forward(const conv::StackForward& op) {
  const std::int64_t n = op.layers.shape[0], height = op.x.shape[1], width = op.x.shape[2], pixels = height * width;
  if (op.out.size() == 0) return;
  parallel_for(op.x.shape[0], [&](std::int64_t image) {
    const auto floats = static_cast<std::size_t>(map_floats(op.layers, pixels));
    Scratch scratch(4 * floats + static_cast<std::size_t>(n + 1) * sizeof(float*) + 128);
    Maps maps{scratch.carve<float*>(static_cast<std::size_t>(n + 1)), height, width};
    place_maps(op.layers, pixels, scratch.carve<float>(floats), maps.map);
    maps.map[0] = const_cast<float*>(op.x.data) + image * pixels * op.x.shape[3];  // read only
    maps.map[n] = op.out.data + image * pixels * op.out.shape[3];
    forward(op, image, maps);
  });
}

// --- back -----------------------------------------------------------------------------------------------------------------

// Gradients of the maps of one image: none, until something is added.
struct MapGradients {
  float** map;
  float** home;  // memory of each map's own
  bool* given;

  void clear(std::int64_t n) const {
    std::memcpy(map, home, static_cast<std::size_t>(n) * sizeof(float*));
    for (std::int64_t m = 0; m < n; ++m) given[m] = false;
  }

  // Where the gradient of a map may be written: itself if it is the first part, else `spare`, to be added.
  float* place(std::int64_t m, float* spare) const { return given[m] ? spare : map[m]; }
  void add(std::int64_t m, const float* part, std::int64_t size) const {
    if (part == map[m]) {
      given[m] = true;
      return;
    }
    float* to = map[m];
    if (given[m]) {
      for (std::int64_t i = 0; i < size; ++i) to[i] += part[i];
    } else {
      std::memcpy(to, part, 4 * static_cast<std::size_t>(size));
      given[m] = true;
    }
  }
  // What passes where the layer's result y is positive.
  void add_where_positive(std::int64_t m, const float* y, const float* part, std::int64_t size) const {
    float* to = map[m];
    if (given[m]) {
      for (std::int64_t i = 0; i < size; ++i) to[i] += y[i] > 0 ? part[i] : 0.0f;
    } else {
      for (std::int64_t i = 0; i < size; ++i) to[i] = y[i] > 0 ? part[i] : 0.0f;
      given[m] = true;
    }
  }
  // Both parts of a sum have the sum's gradient, in its memory.
  void share(std::int64_t sum, std::int64_t a, std::int64_t b) const {
    map[a] = map[b] = map[sum];
    given[a] = given[b] = true;
  }
};

// Some neighbouring channels of all pixels: `vectors` of them, the last one with `valid` lanes.
template <int vectors, class Slope>
void through_channels(const Slope& slope, bool changes, const float* y, std::int64_t pixels, std::int64_t channels,
                      int valid, float* grad, float* bias) {
  F total[vectors] = {};
  const auto read = [&](const float* p, int v) {
    return v + 1 < vectors || valid == lanes ? load(p + v * lanes) : load_first(p + v * lanes, valid);
  };
  const auto write = [&](float* p, int v, F value) {
    v + 1 < vectors || valid == lanes ? store(p + v * lanes, value) : store_first(p + v * lanes, value, valid);
  };
  for (std::int64_t p = 0; p < pixels; ++p) {
    GENCORE_UNROLL
    for (int v = 0; v < vectors; ++v) {
      F dz = read(grad + p * channels, v);
      if (changes) {
        dz = slope(dz, read(y + p * channels, v));
        write(grad + p * channels, v, dz);
      }
      total[v] += dz;
    }
  }
  if (bias == nullptr) return;
  for (int v = 0; v < vectors; ++v) write(bias, v, read(bias, v) + total[v]);
}

// dz = grad activation'(y), in place, and its sums over the pixels, added to `bias`.
void through_activation(const Row& row, const float* y, std::int64_t pixels, float* grad, float* bias) {
  const bool changes = row.activation() != dense::Activation::identity;
  if (!changes && bias == nullptr) return;
  const std::int64_t channels = row.c_out();
  with_slope(row.activation(), [&](const auto& slope) {
    for (std::int64_t c = 0; c < channels; c += 2 * lanes) {
      const int left = static_cast<int>(min_of(channels - c, 2 * lanes));
      float* of_bias = bias == nullptr ? nullptr : bias + c;
      if (left > lanes) {
        through_channels<2>(slope, changes, y + c, pixels, channels, left - lanes, grad + c, of_bias);
      } else {
        through_channels<1>(slope, changes, y + c, pixels, channels, left, grad + c, of_bias);
      }
    }
  });
}

struct Spare {
  float *map, *weight;  // a map's gradient, a weight's
};

// Goes back through a convolution: dz is the gradient of its sums.
void back_through_sums(const Row& row, const VectorList<const float>& params, const Maps& maps, const float* dz,
                       const MapGradients& gradients, float* grad_w, const Spare& spare) {
  const std::int64_t pixels = maps.pixels(), c_in = row.c_in(), c_out = row.c_out();
  const float *x = maps.map[row.src()], *w = params[row.weight()].data;
  float* by_x = row.src() == 0 ? nullptr : gradients.place(row.src(), spare.map);
  if (row.is_product()) {
    gemm(c_in, c_out, pixels, x, 1, c_in, dz, c_out, 1, spare.weight, c_out, Identity{});
    if (by_x != nullptr) gemm(pixels, c_in, c_out, dz, c_out, 1, w, 1, c_out, by_x, c_in, Identity{});
  } else {
    conv::Conv2dWeight of_w;
    of_w.x = maps.image(x, c_in);
    of_w.grad = maps.image(dz, c_out);
    of_w.out = row.kernel(spare.weight);
    row.set_geometry(of_w);
    conv2d_weight(of_w);
    if (by_x != nullptr) {
      conv::Conv2dInput of_x;
      of_x.grad = maps.image(dz, c_out);
      of_x.w = row.kernel(w);
      of_x.out = maps.image(by_x, c_in);
      row.set_geometry(of_x);
      conv2d_input(of_x);
    }
  }
  const std::int64_t size = params[row.weight()].size();
  for (std::int64_t i = 0; i < size; ++i) grad_w[i] += spare.weight[i];
  if (by_x != nullptr) gradients.add(row.src(), by_x, pixels * c_in);
}

void backward(const Row& row, const VectorList<const float>& params, const Maps& maps, const float* y, float* grad,
              const MapGradients& gradients, bool shares, float* const* grads, const Spare& spare) {
  const std::int64_t size = maps.pixels() * row.c_out();
  if (row.kind() == Layer::convolve) {
    float* bias = nullptr;
    if (row.bias() >= 0) bias = row.of_class(grads[row.bias()], params[row.bias()].size());
    through_activation(row, y, maps.pixels(), grad, bias);
    back_through_sums(row, params, maps, grad, gradients, grads[row.weight()], spare);
    return;
  }
  if (row.kind() == Layer::gate) {
    if (row.src() == 0) return;
    const std::int64_t colour = row.c_out() / row.groups;
    float* by_x = gradients.place(row.src(), spare.map);
    const float* x = maps.map[row.src()];
    for (std::int64_t i = 0; i < size; i += colour) gate_vjp(x + 2 * i, grad + i, colour, by_x + 2 * i);
    gradients.add(row.src(), by_x, 2 * size);
    return;
  }
  if (row.kind() == Layer::relu) {
    if (row.src() != 0) gradients.add_where_positive(row.src(), y, grad, size);
    return;
  }
  if (shares) return gradients.share(row.l[conv::layer_dst], row.src(), row.src2());
  if (row.src() != 0) gradients.add(row.src(), grad, size);
  if (row.src2() != 0) gradients.add(row.src2(), grad, size);
}

// Whether both parts of sum i may have its gradient in its memory. The later part must be read by nothing else, come from
// a layer that leaves its gradient as it is, and be done with before anything is added to the earlier one's.
bool shares_gradient(const conv::Stack& stack, std::int64_t i) {
  const auto layer = [&](std::int64_t k) { return Row{stack.layers.row(k), stack.channel_groups, 0}; };
  if (layer(i).kind() != Layer::add) return false;
  const std::int64_t early = min_of(layer(i).src(), layer(i).src2()), late = max_of(layer(i).src(), layer(i).src2());
  if (early == late || early == 0) return false;
  const Row maker = layer(late - 1);
  if (maker.kind() != Layer::convolve || maker.activation() != dense::Activation::identity) return false;
  for (std::int64_t k = 0; k < stack.layers.shape[0]; ++k) {
    const auto reads = [&](std::int64_t m) {
      return layer(k).src() == m || (layer(k).kind() == Layer::add && layer(k).src2() == m);
    };
    if (k != i && (reads(late) || (reads(early) && k >= late - 1))) return false;
  }
  return true;
}

// What the tasks of a pass back need to know.
struct Pass {
  const conv::Stack& stack;
  std::int64_t images, height, width, colours;
  VectorList<float> grads;
  std::int64_t largest = 0, widest = 1, total = 0;  // parameter, map's channels, all parameters together

  Pass(const conv::Stack& stack, const std::int64_t (&shape)[4], const VectorList<float>& grads)
      : stack(stack), images(shape[0]), height(shape[1]), width(shape[2]), colours(shape[3]), grads(grads) {
    for (std::int64_t k = 0; k < stack.params.count; ++k) {
      total += stack.params[k].size();
      largest = max_of(largest, stack.params[k].size());
    }
    for (std::int64_t i = 0; i < count(); ++i) widest = max_of(widest, stack.layers.row(i)[conv::layer_c_out]);
  }
  std::int64_t count() const { return stack.layers.shape[0]; }
  std::int64_t pixels() const { return height * width; }
  std::int64_t last() const { return stack.layers.row(count() - 1)[conv::layer_c_out]; }  // channels
  Row row(std::int64_t i, std::int64_t image) const {
    return {stack.layers.row(i), stack.channel_groups, stack.labels.given() ? stack.labels[image] : 0};
  }
};

// Memory of a task.
struct Workspace {
  Maps maps;
  MapGradients gradients;
  float *image, *last, *grad;  // room for the first map; the last one and its gradient
  Spare spare;
  float** grads;
  bool* shares;  // of each layer

  static std::size_t bytes(const Pass& pass) {
    const std::int64_t n = pass.count();
    const std::int64_t floats = 2 * map_floats(pass.stack.layers, pass.pixels()) +
                                pass.pixels() * (pass.colours + 2 * pass.last() + pass.widest) + pass.largest;
    return 4 * static_cast<std::size_t>(floats) +
           static_cast<std::size_t>(3 * (n + 1) + pass.stack.params.count) * sizeof(float*) +
           static_cast<std::size_t>(2 * (n + 1)) + 1024;
  }
  Workspace(const Pass& pass, float* sums, Scratch& scratch) {
    const std::int64_t n = pass.count(), pixels = pass.pixels();
    const auto floats = static_cast<std::size_t>(map_floats(pass.stack.layers, pixels));
    const auto pointers = static_cast<std::size_t>(n + 1);
    const auto carve = [&](std::int64_t size) { return scratch.carve<float>(static_cast<std::size_t>(size)); };
    maps = {scratch.carve<float*>(pointers), pass.height, pass.width};
    gradients = {scratch.carve<float*>(pointers), scratch.carve<float*>(pointers), scratch.carve<bool>(pointers)};
    shares = scratch.carve<bool>(pointers);
    for (std::int64_t i = 0; i < n; ++i) shares[i] = shares_gradient(pass.stack, i);
    place_maps(pass.stack.layers, pixels, scratch.carve<float>(floats), maps.map);
    place_maps(pass.stack.layers, pixels, scratch.carve<float>(floats), gradients.home);
    image = carve(pixels * pass.colours);
    last = carve(pixels * pass.last());
    grad = carve(pixels * pass.last());
    maps.map[n] = last;
    gradients.home[n] = grad;
    spare = {carve(pixels * pass.widest), carve(pass.largest)};
    grads = scratch.carve<float*>(static_cast<std::size_t>(pass.stack.params.count));
    for (std::int64_t k = 0; k < pass.stack.params.count; ++k) {
      grads[k] = sums;
      sums += pass.stack.params[k].size();
    }
  }
};

// From the last map's gradient, which is in its place.
void backward(const Pass& pass, std::int64_t image, const Workspace& work) {
  const std::int64_t n = pass.count();
  work.gradients.clear(n + 1);
  work.gradients.given[n] = true;
  for (std::int64_t i = n - 1; i >= 0; --i) {
    if (!work.gradients.given[i + 1]) continue;  // a map that nothing reads
    backward(pass.row(i, image), pass.stack.params, work.maps, work.maps.map[i + 1], work.gradients.map[i + 1],
             work.gradients, work.shares[i], work.grads, work.spare);
  }
}

// Sums of the parameters' gradients over all images; of(image, work) adds those of one.
template <class Image>
void sum_over_images(const Pass& pass, const Image& of) {
  const Cut groups{pass.images, max_of(min_of(pass.images, image_groups), 1)};
  Scratch sums(4 * static_cast<std::size_t>(groups.count * pass.total) + 64);
  float* of_groups = sums.carve<float>(static_cast<std::size_t>(groups.count * pass.total));
  parallel_for(groups.count, [&](std::int64_t group) {
    Scratch scratch(Workspace::bytes(pass));
    float* own = of_groups + group * pass.total;
    std::memset(own, 0, 4 * static_cast<std::size_t>(pass.total));
    const Workspace work(pass, own, scratch);
    for (std::int64_t i = groups.begin(group); i < groups.begin(group + 1); ++i) of(i, work);
  });
  std::int64_t begin = 0;
  for (std::int64_t k = 0; k < pass.stack.params.count; ++k) {
    for (std::int64_t j = 0; j < pass.stack.params[k].size(); ++j) {
      double sum = 0;
      for (std::int64_t group = 0; group < groups.count; ++group) {
        sum += static_cast<double>(of_groups[group * pass.total + begin + j]);
      }
      pass.grads[k][j] = static_cast<float>(sum);
    }
    begin += pass.stack.params[k].size();
  }
}

void stack_vjp(const conv::StackVjp& op) {
  const Pass pass(op, op.x.shape, op.grads);
  const std::int64_t pixels = pass.pixels();
  sum_over_images(pass, [&](std::int64_t image, const Workspace& work) {
    if (pixels == 0) return;
    work.maps.map[0] = const_cast<float*>(op.x.data) + image * pixels * pass.colours;  // read only
    forward(pass.stack, image, work.maps);
    std::memcpy(work.grad, op.grad.data + image * pixels * pass.last(),
                4 * static_cast<std::size_t>(pixels * pass.last()));
    backward(pass, image, work);
  });
}

// --- log-probabilities --------------------------------------------------------------------------------------------------

// out = log P(image) by its last map, and the gradient of grad times that.
void log_prob_of_image(const conv::StackLogProbVjp& op, const std::uint8_t* image, const Workspace& work,
                       std::int64_t units, Vector<float> out, Vector<const float> grad) {
  const std::int64_t each = conv::detail::logits_of(op.levels, op.n_mixtures);
  const Matrix<const std::uint8_t> x{image, {1, units}};
  const Matrix<const float> params{work.last, {1, units * each}}, logits{work.last, {units, each}};
  if (op.n_mixtures > 0) {
    dense::LogisticMixtureLogProb forward;
    forward.params = params;
    forward.x = x;
    forward.levels = op.levels;
    forward.n_mixtures = op.n_mixtures;
    forward.out = out;
    logistic_mixture_log_prob(forward);
    dense::LogisticMixtureLogProbVjp back;
    back.grad = grad;
    back.params = params;
    back.x = x;
    back.levels = op.levels;
    back.n_mixtures = op.n_mixtures;
    back.grad_params = {work.grad, {1, units * each}};
    return logistic_mixture_log_prob_vjp(back);
  }
  if (op.levels == 2) {
    dense::BernoulliLogProb forward;
    forward.logits = params;
    forward.targets = x;
    forward.out = out;
    bernoulli_log_prob(forward);
    dense::BernoulliLogProbVjp back;
    back.grad = grad;
    back.logits = params;
    back.targets = x;
    back.grad_logits = {work.grad, {1, units}};
    return bernoulli_log_prob_vjp(back);
  }
  Scratch scratch(static_cast<std::size_t>(units) * 16 + 256);
  auto* labels = scratch.carve<std::int64_t>(static_cast<std::size_t>(units));
  auto *costs = scratch.carve<float>(static_cast<std::size_t>(units)),
       *slopes = scratch.carve<float>(static_cast<std::size_t>(units));
  for (std::int64_t u = 0; u < units; ++u) {
    labels[u] = image[u];
    slopes[u] = -grad[0];
  }
  dense::SoftmaxCrossEntropy forward;
  forward.logits = logits;
  forward.labels = {labels, {units}};
  forward.out = {costs, {units}};
  softmax_cross_entropy(forward);
  dense::SoftmaxCrossEntropyVjp back;
  back.grad = {slopes, {units}};
  back.logits = logits;
  back.labels = forward.labels;
  back.grad_logits = {work.grad, {units, each}};
  softmax_cross_entropy_vjp(back);
  double total = 0;
  for (std::int64_t u = 0; u < units; ++u) total += static_cast<double>(costs[u]);
  out[0] = static_cast<float>(-total);
}

void stack_log_prob_vjp(const conv::StackLogProbVjp& op) {
  const Pass pass(op, op.images.shape, op.grads);
  const std::int64_t units = pass.pixels() * pass.colours;
  const float unit = 1.0f / static_cast<float>(op.levels - 1);
  sum_over_images(pass, [&](std::int64_t image, const Workspace& work) {
    const std::uint8_t* levels = op.images.data + image * units;
    op.out[image] = 0;
    if (units == 0) return;
    for (std::int64_t u = 0; u < units; ++u) work.image[u] = static_cast<float>(levels[u]) * unit;
    work.maps.map[0] = work.image;
    forward(pass.stack, image, work.maps);
    log_prob_of_image(op, levels, work, units, {op.out.data + image, {1}}, {op.grad.data + image, {1}});
    backward(pass, image, work);
  });
}

}  // namespace

void fill_pixel_stack(runtime::Table& table) {
  table.conv.StackForward = stack_forward;
  table.conv.StackVjp = stack_vjp;
  table.conv.StackLogProbVjp = stack_log_prob_vjp;
}

}  // namespace gencore::GENCORE_LEVEL
