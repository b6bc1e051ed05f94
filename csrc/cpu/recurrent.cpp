// LSTM along sequences and along the rows and diagonals of images, forward and back.
//
// The limit: multiply-adds. A step's product has as many rows as a task has sequences, and reads all weights: 32 of them
// keep the core busy while the weights come from a shared cache. No thread waits for another within a sweep. The weights'
// gradients are products over all steps at once.
#include "recurrent.h"

#include "../runtime/table.h"
#include "transpose.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using recurrent::Lstm;
using recurrent::LstmCell;
using recurrent::LstmVjp;
using recurrent::MapLstm;
using recurrent::MapLstmVjp;
using recurrent::Path;

constexpr std::int64_t task_sequences = 32;
constexpr std::int64_t map_groups = 16;  // of images, whose gradients are summed apart

std::size_t size_of(std::int64_t floats) { return 4 * static_cast<std::size_t>(floats); }
float* carve(Scratch& scratch, std::int64_t floats) { return scratch.carve<float>(static_cast<std::size_t>(floats)); }

const float* row_or_null(const Matrix<const float>& m, std::int64_t i) { return m.given() ? m.row(i) : nullptr; }
float* row_or_null(const Matrix<float>& m, std::int64_t i) { return m.given() ? m.row(i) : nullptr; }

// --- sequences --------------------------------------------------------------------------------------------------------

// Sequences [begin, end) side by side.
Sweep sequences(std::int64_t begin, std::int64_t end, std::int64_t steps) {
  return {steps, end - begin, begin * steps, steps, 1, 1, 0};
}
Cut sequence_tasks(std::int64_t n) { return {n, ceil_div(n, task_sequences)}; }

void lstm(const Lstm& op) {
  const std::int64_t n = op.x.shape[0], steps = op.x.shape[1], depth = op.x.shape[2], units = op.w_hidden.shape[0];
  Scratch scratch(size_of(GatePanels::floats(depth + units, units)) + 64);
  const GatePanels panels{carve(scratch, GatePanels::floats(depth + units, units)), depth + units, units};
  parallel_for(panels.count(), [&](std::int64_t q) {
    panels.pack(q, 0, depth, op.w_input.data);
    panels.pack(q, depth, units, op.w_hidden.data);
  });
  const Cut tasks = sequence_tasks(n);
  parallel_for(tasks.count, [&](std::int64_t task) {
    const std::int64_t begin = tasks.begin(task);
    const Sweep sweep = sequences(begin, tasks.begin(task + 1), steps);
    const ForwardArrays arrays{op.bias.data,
                               0,
                               op.x.data,
                               depth,
                               op.h.data,
                               units,
                               op.gates.data,
                               op.cells.data,
                               row_or_null(op.h0, begin),
                               row_or_null(op.c0, begin),
                               op.c.row(begin)};
    Scratch local(size_of(ForwardState::floats(sweep, units, depth)) + 64);
    sweep_forward(sweep, panels, arrays, carve(local, ForwardState::floats(sweep, units, depth)));
  });
}

// What meets the gates of each step of sequence n: x, the state before, and 1 for the bias, (steps, stride).
void inputs_of_steps(const LstmVjp& op, std::int64_t n, std::int64_t stride, float* out) {
  const std::int64_t steps = op.h.shape[1], units = op.h.shape[2], depth = op.x.shape[2];
  for (std::int64_t t = 0; t < steps; ++t, out += stride) {
    std::memcpy(out, op.x.data + (n * steps + t) * depth, size_of(depth));
    if (t > 0) {
      std::memcpy(out + depth, op.h.data + (n * steps + t - 1) * units, size_of(units));
    } else if (op.h0.given()) {
      std::memcpy(out + depth, op.h0.row(n), size_of(units));
    } else {
      std::memset(out + depth, 0, size_of(units));
    }
    out[depth + units] = 1.0f;
  }
}

// Gradients of w_input, w_hidden and bias: one product over all steps.
void parameter_gradients(const LstmVjp& op, const float* inputs, std::int64_t stride, const float* grad_z) {
  const std::int64_t rows = op.x.shape[0] * op.x.shape[1], depth = op.x.shape[2], units = op.h.shape[2];
  const std::int64_t gates = cell_gates * units;
  Scratch scratch(size_of((depth + units + 1) * gates) + 64);
  float* all = carve(scratch, (depth + units + 1) * gates);
  gemm(depth + units + 1, gates, rows, inputs, 1, stride, grad_z, gates, 1, all, gates, Identity{});
  std::memcpy(op.grad_w_input.data, all, size_of(depth * gates));
  std::memcpy(op.grad_w_hidden.data, all + depth * gates, size_of(units * gates));
  std::memcpy(op.grad_bias.data, all + (depth + units) * gates, size_of(gates));
}

void lstm_vjp(const LstmVjp& op) {
  const std::int64_t n = op.x.shape[0], steps = op.x.shape[1], depth = op.x.shape[2], units = op.w_hidden.shape[0];
  const std::int64_t rows = n * steps, gates = cell_gates * units, stride = odd_lines(depth + units + 1);
  Scratch scratch(size_of(UnitPanels::floats(1, units) + rows * (gates + stride)) + 256);
  const UnitPanels panels{carve(scratch, UnitPanels::floats(1, units)), 1, units};
  float *grad_z = carve(scratch, rows * gates), *inputs = carve(scratch, rows * stride);
  parallel_for(panels.cut().count, [&](std::int64_t q) { panels.pack(q, op.w_hidden.data); });
  const Cut tasks = sequence_tasks(n);
  parallel_for(tasks.count, [&](std::int64_t task) {
    const std::int64_t begin = tasks.begin(task), end = tasks.begin(task + 1);
    const Sweep sweep = sequences(begin, end, steps);
    const BackwardArrays arrays{op.grad_h.data,
                                units,
                                op.gates.data,
                                op.cells.data,
                                grad_z,
                                row_or_null(op.c0, begin),
                                row_or_null(op.grad_c, begin),
                                row_or_null(op.grad_h0, begin),
                                row_or_null(op.grad_c0, begin)};
    Scratch local(size_of(BackwardState::floats(sweep, units)) + 64);
    sweep_backward(sweep, panels, arrays, carve(local, BackwardState::floats(sweep, units)));
    for (std::int64_t i = begin; i < end; ++i) inputs_of_steps(op, i, stride, inputs + i * steps * stride);
  });
  parameter_gradients(op, inputs, stride, grad_z);
  if (!op.grad_x.given()) return;
  gemm(rows, depth, gates, grad_z, gates, 1, op.w_input.data, 1, gates, op.grad_x.data, depth, Identity{});
}

// --- images -----------------------------------------------------------------------------------------------------------

// Where pixels of one image lie in the rows of its map.
Sweep image_sweep(Path path, std::int64_t height, std::int64_t width, std::int64_t taps, std::int64_t sweep) {
  if (path == Path::rows) return {height, width, 0, 1, width, taps, taps / 2};
  const std::int64_t steps = height > 0 && width > 0 ? height + width - 1 : 0;
  if (sweep == 0) return {steps, height, 0, width - 1, 1, 2, 1, width};
  return {steps, height, width - 1, width + 1, -1, 2, 1, width};  // column width - 1 - (d - p)
}

void map_lstm(const MapLstm& op) {
  const std::int64_t n = op.h.shape[0], height = op.h.shape[1], width = op.h.shape[2], h_stride = op.h.shape[3];
  const std::int64_t sweeps = op.w.shape[0], taps = op.w.shape[1], units = op.w.shape[2], depth = taps * units;
  const std::int64_t floats = GatePanels::floats(depth, units), pixels = height * width;
  Scratch scratch(size_of(sweeps * floats) + 64);
  float* packed = carve(scratch, sweeps * floats);
  const auto panels = [&](std::int64_t s) { return GatePanels{packed + s * floats, depth, units}; };
  for (std::int64_t s = 0; s < sweeps; ++s) {
    for (std::int64_t q = 0; q < panels(s).count(); ++q) {
      panels(s).pack(q, 0, depth, op.w.data + s * depth * cell_gates * units);
    }
  }
  parallel_for(n * sweeps, [&](std::int64_t task) {
    const std::int64_t s = task % sweeps, first = task / sweeps * pixels;
    const Sweep sweep = image_sweep(op.path, height, width, taps, s);
    const auto of_image = [&](float* data, std::int64_t channels) {
      return data == nullptr ? nullptr : data + first * channels * h_stride + s * channels * units;
    };
    const ForwardArrays arrays{op.z.data + first * cell_gates * h_stride + s * cell_gates * units,
                               cell_gates * h_stride,
                               nullptr,
                               0,
                               of_image(op.h.data, 1),
                               h_stride,
                               of_image(op.gates.data, cell_gates),
                               of_image(op.cells.data, 1),
                               nullptr,
                               nullptr,
                               nullptr};
    Scratch local(size_of(ForwardState::floats(sweep, units, 0)) + 64);
    sweep_forward(sweep, panels(s), arrays, carve(local, ForwardState::floats(sweep, units, 0)));
  });
}

// For each pixel of an image the states that its taps meet, (rows, taps, units); 0 beyond the image.
void states_met(const Sweep& sweep, std::int64_t units, const float* h, std::int64_t h_stride, float* out) {
  for (std::int64_t d = 0; d < sweep.steps; ++d) {
    for (std::int64_t p = sweep.first(d); p < sweep.end(d); ++p) {
      float* to = out + sweep.row(p, d) * sweep.taps * units;
      for (std::int64_t j = 0; j < sweep.taps; ++j, to += units) {
        const std::int64_t met = p + j - sweep.up;
        if (sweep.has(met, d - 1)) {
          std::memcpy(to, h + sweep.row(met, d - 1) * h_stride, size_of(units));
        } else {
          std::memset(to, 0, size_of(units));
        }
      }
    }
  }
}

// Memory of a group of images.
struct MapWorkspace {
  float *state, *met, *weight;

  static std::size_t bytes(const Sweep& sweep, std::int64_t pixels, std::int64_t units) {
    const std::int64_t depth = sweep.taps * units;
    return size_of(BackwardState::floats(sweep, units) + pixels * depth + depth * cell_gates * units) + 256;
  }
  MapWorkspace(const Sweep& sweep, std::int64_t pixels, std::int64_t units, Scratch& scratch)
      : state(carve(scratch, BackwardState::floats(sweep, units))),
        met(carve(scratch, pixels * sweep.taps * units)),
        weight(carve(scratch, sweep.taps * units * cell_gates * units)) {}
};

// One sweep of one image; adds the gradient of its weights to grad_w.
void image_vjp(const MapLstmVjp& op, std::int64_t image, std::int64_t s, const Sweep& sweep, const UnitPanels& panels,
               const MapWorkspace& work, float* grad_w) {
  const std::int64_t pixels = op.h.shape[1] * op.h.shape[2], h_stride = op.h.shape[3], units = panels.units;
  const std::int64_t first = image * pixels * h_stride + s * units, depth = panels.taps * units;
  const BackwardArrays arrays{op.grad_h.data + first,
                              h_stride,
                              op.gates.data + cell_gates * first,
                              op.cells.data + first,
                              op.grad_z.data + cell_gates * first,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr};
  sweep_backward(sweep, panels, arrays, work.state);
  states_met(sweep, units, op.h.data + first, h_stride, work.met);
  gemm(depth, cell_gates * units, pixels, work.met, 1, depth, arrays.grad_z, cell_gates * h_stride, 1, work.weight,
       cell_gates * units, Identity{});
  for (std::int64_t i = 0; i < depth * cell_gates * units; ++i) grad_w[i] += work.weight[i];
}

void map_lstm_vjp(const MapLstmVjp& op) {
  const std::int64_t n = op.h.shape[0], height = op.h.shape[1], width = op.h.shape[2], total = op.w.size();
  const std::int64_t sweeps = op.w.shape[0], taps = op.w.shape[1], units = op.w.shape[2];
  const std::int64_t floats = UnitPanels::floats(taps, units), pixels = height * width;
  const Cut groups{n, max_of(min_of(n, map_groups), 1)};
  Scratch scratch(size_of(sweeps * floats + groups.count * total) + 128);
  float *packed = carve(scratch, sweeps * floats), *of_groups = carve(scratch, groups.count * total);
  const auto panels = [&](std::int64_t s) { return UnitPanels{packed + s * floats, taps, units}; };
  for (std::int64_t s = 0; s < sweeps; ++s) {
    for (std::int64_t q = 0; q < panels(s).cut().count; ++q) panels(s).pack(q, op.w.data + s * (total / sweeps));
  }
  parallel_for(groups.count * sweeps, [&](std::int64_t task) {
    const std::int64_t s = task % sweeps, group = task / sweeps;
    const Sweep sweep = image_sweep(op.path, height, width, taps, s);
    Scratch local(MapWorkspace::bytes(sweep, pixels, units));
    const MapWorkspace work(sweep, pixels, units, local);
    float* own = of_groups + group * total + s * (total / sweeps);
    std::memset(own, 0, size_of(total / sweeps));
    for (std::int64_t i = groups.begin(group); i < groups.begin(group + 1); ++i) {
      if (pixels > 0) image_vjp(op, i, s, sweep, panels(s), work, own);
    }
  });
  for (std::int64_t i = 0; i < total; ++i) {
    double sum = 0;
    for (std::int64_t group = 0; group < groups.count; ++group) {
      sum += static_cast<double>(of_groups[group * total + i]);
    }
    op.grad_w.data[i] = static_cast<float>(sum);
  }
}

// --- one step ---------------------------------------------------------------------------------------------------------

void lstm_cell(const LstmCell& op) {
  const std::int64_t units = op.before.shape[1];
  for_each_row_task(op.before.shape[0], units, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float *x = op.input.row(r), *s = op.state.row(r);
      for_each_vector(units, [&](std::int64_t j, const auto& at) {
        const auto gate = [&](int k) { return at.load(s + k * units + j) + at.load(x + k * units + j); };
        const Cell cell = cell_step(gate(0), gate(1), gate(2), gate(3), at.load(op.before.row(r) + j));
        at.store(op.c.row(r) + j, cell.c);
        at.store(op.h.row(r) + j, cell.h);
      });
    }
  });
}

}  // namespace

void fill_recurrent(runtime::Table& table) {
  table.recurrent.Lstm = lstm;
  table.recurrent.LstmVjp = lstm_vjp;
  table.recurrent.MapLstm = map_lstm;
  table.recurrent.MapLstmVjp = map_lstm_vjp;
  table.recurrent.LstmCell = lstm_cell;
}

}  // namespace gencore::GENCORE_LEVEL
