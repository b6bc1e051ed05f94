// Samples of stacks of masked convolutions, pixel by pixel, all of them in one launch: a block has some images from their
// first pixel to their last, and keeps of each map what later pixels read. A thread has a channel of an image: one chain of
// fused multiply-adds in the order of conv.cu, so that images have the bits of drawing each pixel after a pass over the
// whole image. Who reads what other threads have computed waits for the block; nothing waits for the grid.
//
// The limit is latency. A pixel is as many steps as the stack has layers, each a chain of up to taps c_in multiply-adds, 4
// cycles apart where weights (first-level cache) and inputs (shared memory) are asked for ahead, and a barrier of some 40:
// 7 blocks of 16 features have 1,400 links and 24 barriers, 6,600 cycles or 4 us a pixel, 3 ms for 28 x 28, of one image or
// of 132. More images than multiprocessors share a block's idle threads first. Figures follow from the sizes, and have not
// been measured on a device.
#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "activation.cuh"
#include "conv.cuh"
#include "pixel_draw.cuh"
#include "pixel_layer.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using conv::Layer;
using conv::PixelSample;

constexpr int chunk_steps = 24;  // that a launch's arguments have room for

// Of each image: a map's rows that are still read, one in the place of another, with zeros on both sides; where nothing
// reaches beyond its own pixel, that pixel alone.
struct PixelMap {
  std::int64_t begin = 0;  // floats, in an image's memory
  int channels = 0, rows = 1, left = 0, places = 1, step = 0;
  bool row_by_row = false;  // complete before the first pixel of a row is drawn

  GENCORE_INLINE std::int64_t floats() const { return std::int64_t{1} * rows * places * channels; }
  __device__ std::int64_t at(int y, int x) const {
    return begin + ((y + rows) % rows * places + x * step + left) * static_cast<std::int64_t>(channels);
  }
};

// A layer, and the map that it makes.
struct PixelStep {
  Taps taps;
  Layer kind;
  dense::Activation activation;
  bool of_classes;  // the bias has a row for each
  bool meets;       // reads what other threads have written since they last met
  int src, src2;
  const float *w, *bias;
  PixelMap to;
};

// What a launch needs to know.
struct Drawing {
  const PixelStep* steps;
  PixelMap image, last;
  int count, groups, beside;  // beside: images of a block
  int height, width, colours;
  std::int64_t images, image_floats;
  UnitLaw law;
  float unit;  // of a level, as layers read it
  const std::int64_t* labels;
  std::int64_t classes;
  const std::uint8_t *given, *keep;
  bool keep_of_each;
  std::uint8_t* out;
  Key key;
  std::int64_t step, first_row;
  std::size_t step_bytes;  // of shared memory, before an image's floats
};

// --- one block -----------------------------------------------------------------------------------------------------------

class Painter {
 public:
  __device__ Painter(const Drawing& d, const PixelStep* steps, float* memory)
      : d_(d), steps_(steps), memory_(memory), first_(static_cast<std::int64_t>(blockIdx.x) * d.beside) {
    images_ = static_cast<int>(d.images - first_ < d.beside ? d.images - first_ : d.beside);
  }

  __device__ void run() const {
    for (std::int64_t i = threadIdx.x; i < images_ * d_.image_floats; i += block_threads) memory_[i] = 0;
    __syncthreads();
    for (int y = 0; y < d_.height; ++y) {
      for (int i = 0; i < d_.count; ++i) {
        if (steps_[i].to.row_by_row) run_step(steps_[i], y, 0, d_.width, 0, steps_[i].taps.c_out);
      }
      __syncthreads();
      for (int x = 0; x < d_.width; ++x) {
        for (int colour = 0; colour < d_.groups; ++colour) pixel(y, x, colour);
      }
    }
  }

 private:
  __device__ const PixelMap& map(int m) const { return m == 0 ? d_.image : steps_[m - 1].to; }
  __device__ float* of_image(int n) const { return memory_ + n * d_.image_floats; }

  __device__ void pixel(int y, int x, int colour) const {
    for (int i = 0; i < d_.count; ++i) {
      const int channels = steps_[i].taps.c_out / d_.groups;
      if (!steps_[i].to.row_by_row) run_step(steps_[i], y, x, 1, colour * channels, channels);
    }
    __syncthreads();
    const int of_pass = d_.colours / d_.groups;
    for (int i = static_cast<int>(threadIdx.x) / warp_lanes; i < images_ * of_pass; i += block_threads / warp_lanes) {
      draw(i / of_pass, y, x, colour * of_pass + i % of_pass);
    }
    __syncthreads();
  }
  // `channels` of them from `begin` on, of pixels x to x + pixels of all images: a thread each.
  __device__ void run_step(const PixelStep& s, int y, int x, int pixels, int begin, int channels) const {
    if (s.meets) __syncthreads();
    const int of_image = pixels * channels;
    for (int i = static_cast<int>(threadIdx.x); i < images_ * of_image; i += block_threads) {
      const int n = i / of_image, rest = i % of_image;
      element(s, n, y, x + rest / channels, begin + rest % channels);
    }
  }
  __device__ void element(const PixelStep& s, int n, int y, int x, int channel) const {
    float* const image = of_image(n);
    const float* from = image + map(s.src).at(y, x);
    float value = 0;
    switch (s.kind) {
      case Layer::convolve: value = convolved(s, image, n, y, x, channel); break;
      case Layer::add: value = from[channel] + image[map(s.src2).at(y, x) + channel]; break;
      case Layer::relu: value = from[channel] > 0 ? from[channel] : 0.0f; break;
      case Layer::gate: value = Halves{s.taps.c_out / d_.groups}.gated(from, channel); break;
    }
    image[s.to.at(y, x) + channel] = value;
  }
  __device__ float convolved(const PixelStep& s, const float* image, int n, int y, int x, int channel) const {
    const Taps& taps = s.taps;
    const PixelMap& from = map(s.src);
    const int group = channel / (taps.c_out / taps.groups);
    float sum = 0;
    for (int ky = 0; ky < taps.kh; ++ky) {
      const int length = taps.stretch(ky, group);
      if (length == 0) continue;
      const float* in = image + from.at(y + ky - taps.kh / 2, x - taps.kw / 2);
      const float* w = s.w + std::int64_t{1} * ky * taps.kw * taps.c_in * taps.c_out + channel;
#pragma unroll 8
      for (int t = 0; t < length; ++t) sum = fmaf(in[t], __ldg(w + std::int64_t{1} * t * taps.c_out), sum);
    }
    if (s.of_classes) {
      sum += class_bias(s.bias, d_.labels[first_ + n], d_.classes, taps.c_out, channel);
    } else if (s.bias != nullptr) {
      sum += __ldg(s.bias + channel);
    }
    return activated(s.activation, sum);
  }
  // By a warp.
  __device__ void draw(int n, int y, int x, int colour) const {
    const std::int64_t row = first_ + n, place = (std::int64_t{1} * y * d_.width + x) * d_.colours + colour;
    const std::int64_t at = row * d_.height * d_.width * d_.colours + place;
    std::uint8_t level;
    if (d_.keep != nullptr && d_.keep[d_.keep_of_each ? at : place] != 0) {
      level = d_.given[at];
    } else {
      const float* from = of_image(n) + d_.last.at(y, x) + colour * d_.law.count;
      level = d_.law(from, unit_uniform(d_.key, d_.step, d_.first_row + row, place));
    }
    if (threadIdx.x % warp_lanes != 0) return;
    d_.out[at] = level;
    of_image(n)[d_.image.at(y, x) + colour] = static_cast<float>(level) * d_.unit;
  }

  const Drawing& d_;
  const PixelStep* steps_;
  float* memory_;
  std::int64_t first_;  // image
  int images_;
};

template <bool on_chip>
__global__ void __launch_bounds__(block_threads) draw_images(Drawing d, float* memory) {
  unsigned char* const shared = dynamic_shared();
  auto* steps = reinterpret_cast<PixelStep*>(shared);
  for (int i = static_cast<int>(threadIdx.x); i < d.count; i += block_threads) steps[i] = d.steps[i];
  float* const own = on_chip ? reinterpret_cast<float*>(shared + d.step_bytes)
                             : memory + blockIdx.x * d.beside * d.image_floats;
  Painter(d, steps, own).run();
}

// --- what is launched ----------------------------------------------------------------------------------------------------

// Steps from the host to the device, in the launch's arguments: a copy could wait, and could not be captured.
struct PutSteps {
  struct Chunk {
    alignas(PixelStep) unsigned char bytes[chunk_steps * sizeof(PixelStep)];
  } chunk;
  PixelStep* to;
  __device__ void operator()(std::int64_t i) const { to[i] = reinterpret_cast<const PixelStep*>(chunk.bytes)[i]; }
};

// The stack as a block sees it.
class Plan {
 public:
  explicit Plan(const PixelSample& op) : layers_(layers_of(op)) {
    image_.channels = static_cast<int>(op.out.shape[3]);
    for (const StackLayer& l : layers_) {
      conv::Conv2d geometry;
      l.set_geometry(geometry);
      const bool convolves = l.convolves(), biased = convolves && l.bias >= 0;
      PixelStep s{Taps(geometry, {l.kh, l.kw, l.c_in, l.c_out}),
                  l.kind,
                  l.activation,
                  l.has_class_bias(op),
                  false,
                  static_cast<int>(l.src),
                  static_cast<int>(l.kind == Layer::add ? l.src2 : l.src),
                  convolves ? op.params[l.weight].data : nullptr,
                  biased ? op.params[l.bias].data : nullptr,
                  {}};
      s.to.channels = static_cast<int>(l.c_out);
      s.to.row_by_row = row_by_row(s);
      steps_.push_back(s);
    }
    place(static_cast<int>(op.out.shape[2]));
    find_meetings();
  }

  const std::vector<PixelStep>& steps() const { return steps_; }
  int count() const { return static_cast<int>(steps_.size()); }
  const PixelMap& image() const { return image_; }
  const PixelMap& last() const { return steps_.back().to; }
  std::int64_t floats() const { return floats_; }  // of an image
  int widest() const {
    int channels = 1;
    for (const PixelStep& s : steps_) channels = s.to.channels > channels ? s.to.channels : channels;
    return channels;
  }

 private:
  PixelMap& map(int m) { return m == 0 ? image_ : steps_[static_cast<std::size_t>(m - 1)].to; }

  bool row_by_row(const PixelStep& s) {
    return conv::comes_row_by_row(s.kind, s.taps.mask, s.taps.kh, s.taps.kw,
                                  map(s.src).row_by_row && map(s.src2).row_by_row);
  }
  // Rows and columns that readers need.
  void place(int width) {
    for (int m = 0; m <= count(); ++m) {
      PixelMap& own = map(m);
      bool far = own.row_by_row;
      int right = 0;
      for (const PixelStep& s : steps_) {
        if (s.kind != Layer::convolve || s.src != m) continue;
        const int rows = s.taps.kh / 2 + 1, left = s.taps.kw / 2;
        far = far || s.taps.kh > 1 || s.taps.kw > 1;
        own.rows = rows > own.rows ? rows : own.rows;
        own.left = left > own.left ? left : own.left;
        right = s.taps.kw - 1 - left > right ? s.taps.kw - 1 - left : right;
      }
      if (far) {
        own.places = own.left + width + right;
        own.step = 1;
      }
      own.begin = floats_;
      floats_ += own.floats();
    }
  }
  // Where threads meet: before a layer that reads other channels, or other pixels, than those that its threads have just
  // written. A sum's and a relu's have written their own themselves.
  void find_meetings() {
    for (const bool rows : {true, false}) {
      std::vector<bool> fresh(steps_.size() + 1);
      for (int i = 0; i < count(); ++i) {
        PixelStep& s = steps_[static_cast<std::size_t>(i)];
        if (s.to.row_by_row != rows) continue;
        s.meets = (s.kind == Layer::convolve || s.kind == Layer::gate) && fresh[static_cast<std::size_t>(s.src)];
        if (s.meets) fresh.assign(fresh.size(), false);
        fresh[static_cast<std::size_t>(i + 1)] = true;
      }
    }
  }

  std::vector<StackLayer> layers_;
  std::vector<PixelStep> steps_;
  PixelMap image_;
  std::int64_t floats_ = 0;
};

// How many images a block has: no more than there are for each multiprocessor, than keep its threads busy, or than fit.
int images_beside(const Plan& plan, std::int64_t images, int multiprocessors, std::size_t step_bytes,
                  std::size_t shared_bytes) {
  const std::int64_t share = ceil_div(images, multiprocessors), busy = 4 * block_threads / plan.widest();
  std::int64_t beside = share < busy ? share : busy > 0 ? busy : 1;
  const std::size_t each = 4 * static_cast<std::size_t>(plan.floats());
  while (beside > 1 && step_bytes + each * static_cast<std::size_t>(beside) > shared_bytes) --beside;
  return static_cast<int>(beside);
}

const PixelStep* put_steps(const PixelSample& op, const Plan& plan, PixelStep* to) {
  for (int begin = 0; begin < plan.count(); begin += chunk_steps) {
    const int left = plan.count() - begin, count = left < chunk_steps ? left : chunk_steps;
    PutSteps put{{}, to + begin};
    std::memcpy(put.chunk.bytes, plan.steps().data() + begin, static_cast<std::size_t>(count) * sizeof(PixelStep));
    for_each_element(op, count, put);
  }
  return to;
}

void pixel_sample(const PixelSample& op) {
  if (op.out.size() == 0) return;
  const Plan plan(op);
  const std::size_t shared_bytes = std::min(most_shared(op, draw_images<true>), most_shared(op, draw_images<false>));
  const std::size_t step_bytes = (static_cast<std::size_t>(plan.count()) * sizeof(PixelStep) + 15) / 16 * 16;
  check::in_range(op.name, "the rows of layers, on a device,", plan.count(), 1,
                  static_cast<std::int64_t>(shared_bytes / sizeof(PixelStep)) - 1);
  const int beside = images_beside(plan, op.out.shape[0], limits_of(op.name, op.device).multiprocessors, step_bytes,
                                   shared_bytes);
  const std::int64_t blocks = ceil_div(op.out.shape[0], beside);
  const std::size_t image_bytes = 4 * static_cast<std::size_t>(beside * plan.floats());
  const bool on_chip = step_bytes + image_bytes <= shared_bytes;
  const std::int64_t floats = on_chip ? 0 : blocks * beside * plan.floats();
  DeviceScratch scratch(op, DeviceScratch::bytes<PixelStep>(plan.count()) + DeviceScratch::bytes<float>(floats));
  Drawing d{};
  d.steps = put_steps(op, plan, scratch.carve<PixelStep>(plan.count()));
  d.image = plan.image();
  d.last = plan.last();
  d.count = plan.count();
  d.groups = static_cast<int>(op.channel_groups);
  d.beside = beside;
  d.height = static_cast<int>(op.out.shape[1]);
  d.width = static_cast<int>(op.out.shape[2]);
  d.colours = static_cast<int>(op.out.shape[3]);
  d.images = op.out.shape[0];
  d.image_floats = plan.floats();
  d.law = {conv::detail::logits_of(op.levels, op.n_mixtures), op.n_mixtures, op.levels, 1.0f / op.temperature};
  d.unit = 1.0f / static_cast<float>(op.levels - 1);
  d.labels = op.labels.data;
  d.classes = op.n_classes;
  d.given = op.given.data;
  d.keep = op.keep.data;
  d.keep_of_each = op.keep.given() && op.keep.shape[0] != 1;
  d.out = op.out.data;
  d.key = op.key;
  d.step = op.step;
  d.first_row = op.first_row;
  d.step_bytes = step_bytes;
  launch_blocks(op, blocks, block_threads, step_bytes + (on_chip ? image_bytes : 0),
                on_chip ? draw_images<true> : draw_images<false>, d, scratch.carve<float>(floats));
}

// --- one unit ------------------------------------------------------------------------------------------------------------

struct DrawUnit {
  conv::PixelDraw op;
  UnitLaw law;
  __device__ void operator()(const Team& warp, std::int64_t row, bool exists) const {
    if (!exists) return;  // the whole warp
    const double u = unit_uniform(op.key, op.step, op.first_row + row, op.unit);
    const std::uint8_t level = law(op.logits.row(row), u);
    if (warp.rank == 0) op.out[row] = level;
  }
};

// The limit: of 256 levels, the 1 KB that is read.
void pixel_draw(const conv::PixelDraw& op) {
  const DrawUnit body{op, {op.logits.shape[1], op.n_mixtures, op.levels, 1.0f / op.temperature}};
  const std::int64_t rows = op.out.shape[0];
  launch(op, rows * warp_lanes, over_rows<DrawUnit>, body, rows, warp_lanes);
}

}  // namespace

void fill_pixels(runtime::Table& table) {
  table.conv.PixelSample = pixel_sample;
  table.conv.PixelDraw = pixel_draw;
}

}  // namespace gencore::cuda
