// Sweeps of LSTM cells: step after step, all positions of a step side by side, forward and back.
//
// A sequence's steps or an image's rows and diagonals differ only in where their positions lie in the arrays, which `Path`
// says. Within a sweep the states of a step lie in a small buffer, one row a position and rows of zeros around, so that
// the rows which the taps of a position meet follow each other: a step is one matrix product whose rows overlap.
#pragma once

#include "../runtime/scratch.h"
#include "elements.h"
#include "gemm.h"
#include "gencore/recurrent.h"
#include "math.h"

namespace gencore::GENCORE_LEVEL {

using runtime::Scratch;

constexpr int cell_gates = 4;                     // i, f, g, o
constexpr std::int64_t resident_weights = 65536;  // floats that the second-level cache holds beside all else

// Rows of a forward tile, whose four vectors are the four gates of as many units.
#if defined(GENCORE_AVX512)
constexpr int cell_rows = 6;
#elif defined(GENCORE_AVX2)
constexpr int cell_rows = 3;
#else
constexpr int cell_rows = 2;
#endif

// Floats in an odd number of cache lines, at least n.
GENCORE_INLINE std::int64_t odd_lines(std::int64_t n) { return (ceil_div(n, line) | 1) * line; }

// Position p of step d is row `base + p position_stride + d step_stride` of every array. On diagonals step d has those
// positions, rows of the image, whose column d - p is within the width.
struct Sweep {
  std::int64_t steps, positions;
  std::int64_t base, position_stride, step_stride;
  std::int64_t taps, up;    // tap j of position p meets position p + j - up of the step before
  std::int64_t width = -1;  // of diagonals

  GENCORE_INLINE std::int64_t row(std::int64_t p, std::int64_t d) const {
    return base + p * position_stride + d * step_stride;
  }
  GENCORE_INLINE std::int64_t first(std::int64_t d) const { return width < 0 ? 0 : max_of(d - width + 1, 0); }
  GENCORE_INLINE std::int64_t end(std::int64_t d) const { return width < 0 ? positions : min_of(d + 1, positions); }
  GENCORE_INLINE bool has(std::int64_t p, std::int64_t d) const { return d >= 0 && p >= first(d) && p < end(d); }
  std::int64_t padded() const { return positions + taps - 1; }
};

// --- weights, packed --------------------------------------------------------------------------------------------------

// Forward: for each `lanes` units, row after row of the weights, their gates i, f, g and o; zeros beyond the last unit.
struct GatePanels {
  float* data;
  std::int64_t depth, units;

  static std::int64_t floats(std::int64_t depth, std::int64_t units) {
    return ceil_div(units, lanes) * depth * cell_gates * lanes;
  }
  GENCORE_INLINE std::int64_t count() const { return ceil_div(units, lanes); }
  GENCORE_INLINE float* at(std::int64_t panel) const { return data + panel * depth * cell_gates * lanes; }

  // Rows from `first` on are those of w (rows, 4 units).
  void pack(std::int64_t panel, std::int64_t first, std::int64_t rows, const float* w) const {
    const std::int64_t unit = panel * lanes;
    const int valid = static_cast<int>(min_of(units - unit, lanes));
    float* out = at(panel) + first * cell_gates * lanes;
    for (std::int64_t k = 0; k < rows; ++k, w += cell_gates * units) {
      for (int gate = 0; gate < cell_gates; ++gate, out += lanes) {
        const float* from = w + gate * units + unit;
        store(out, valid == lanes ? load(from) : load_first(from, valid));
      }
    }
  }
};

// Back: the transposed weights, taps in descending order, as many units side by side as a tile has columns.
struct UnitPanels {
  float* data;
  std::int64_t taps, units;

  GENCORE_INLINE std::int64_t depth() const { return taps * cell_gates * units; }
  GENCORE_INLINE Cut cut() const { return {ceil_div(units, lanes), ceil_div(units, panel_columns)}; }
  GENCORE_INLINE std::int64_t column(std::int64_t panel) const { return min_of(cut().begin(panel) * lanes, units); }
  GENCORE_INLINE Span span(std::int64_t panel) const { return Span(column(panel + 1) - column(panel)); }
  GENCORE_INLINE float* at(std::int64_t panel) const { return data + cut().begin(panel) * lanes * depth(); }
  static std::int64_t floats(std::int64_t taps, std::int64_t units) {
    return round_up(units, lanes) * taps * cell_gates * units;
  }

  void pack(std::int64_t panel, const float* w) const {
    const std::int64_t columns = cell_gates * units, stride = span(panel).vectors * lanes;
    for (std::int64_t j = 0; j < taps; ++j) {
      const float* tap = w + ((taps - 1 - j) * units + column(panel)) * columns;
      pack_columns(columns, tap, columns, span(panel), at(panel) + j * columns * stride);
    }
  }
};

// --- one cell ---------------------------------------------------------------------------------------------------------

struct Cell {
  F i, f, g, o, c, h;
};

// The gates of some units that the next step will read at this position, far from those of this one.
GENCORE_INLINE void fetch_gates(const float* gates, std::int64_t units) {
  for (int k = 0; k < cell_gates; ++k) __builtin_prefetch(gates + k * units, 0, 3);
}

GENCORE_INLINE Cell cell_step(F i, F f, F g, F o, F before) {
  Cell cell{logistic(i), logistic(f), tanh(g), logistic(o), {}, {}};
  cell.c = fma(cell.f, before, cell.i * cell.g);
  cell.h = cell.o * tanh(cell.c);
  return cell;
}

// --- forward ----------------------------------------------------------------------------------------------------------

// What a forward sweep reads and writes. Rows are those of Sweep, `stride` apart; a null pointer: there is none.
struct ForwardArrays {
  const float* z;  // what is added to the sums of the gates: of each row, or, with stride 0, the same for all
  std::int64_t z_stride;
  const float* x;  // (rows, depth): goes before h in the product
  std::int64_t x_depth;
  float* h;
  std::int64_t h_stride;
  float *gates, *cells;  // as wide as 4 h and h
  const float *h0, *c0;  // (positions, units)
  float* c_last;         // (positions, units)
};

// The product of `rows` rows of a, `a_stride` apart, and a panel of gates.
inline void multiply_gates(std::int64_t rows, const Segment& segment, std::int64_t a_stride, float* sums) {
  constexpr std::int64_t stride = cell_gates * lanes;
  const TileArguments t{&segment, 1, a_stride, stride, stride - lanes, sums, stride, Span(stride), true};
  switch (rows) {
    case 1: return multiply_tile<1, cell_gates, false, false>(t);
#if defined(GENCORE_AVX512) || defined(GENCORE_AVX2)
    case 2: return multiply_tile<2, cell_gates, false, false>(t);
#endif
#if defined(GENCORE_AVX512)
    case 3: return multiply_tile<3, cell_gates, false, false>(t);
    case 4: return multiply_tile<4, cell_gates, false, false>(t);
    case 5: return multiply_tile<5, cell_gates, false, false>(t);
#endif
    default: return multiply_tile<cell_rows, cell_gates, false, false>(t);
  }
}

// Memory of a forward sweep: two steps' states, [x, h] a row, and the cells of one.
struct ForwardState {
  std::int64_t units, depth;  // depth: floats of a row
  float *before, *now, *cells;

  static std::int64_t floats(const Sweep& sweep, std::int64_t units, std::int64_t x_depth) {
    return 2 * round_up(sweep.padded() * (x_depth + units), line) + round_up(sweep.positions * units, line);
  }
  ForwardState(const Sweep& sweep, std::int64_t units, std::int64_t x_depth, float* memory)
      : units(units), depth(x_depth + units) {
    const std::int64_t states = round_up(sweep.padded() * depth, line);
    std::memset(memory, 0, 4 * static_cast<std::size_t>(floats(sweep, units, x_depth)));
    before = memory;
    now = memory + states;
    cells = memory + 2 * states;
  }
  GENCORE_INLINE void turn() {
    float* const swapped = before;
    before = now;
    now = swapped;
  }
};

// Finishes the gates of `lanes` units of one position, whose sums lie at `sums`.
template <class At>
GENCORE_INLINE void finish_gates(const Sweep& sweep, const ForwardArrays& arrays, const ForwardState& state,
                                 std::int64_t row, std::int64_t position, std::int64_t unit, const float* sums,
                                 const At& at) {
  const std::int64_t units = state.units, up = sweep.up;
  const float* z = arrays.z + row * arrays.z_stride + unit;
  if (arrays.z_stride > 0) fetch_gates(z + sweep.step_stride * arrays.z_stride, units);
  const auto gate = [&](int k) { return load(sums + k * lanes) + at.load(z + k * units); };
  float* const cells = state.cells + position * units + unit;
  const Cell cell = cell_step(gate(0), gate(1), gate(2), gate(3), at.load(cells));
  at.store(cells, cell.c);
  at.store(state.now + (position + up + 1) * state.depth - units + unit, cell.h);
  at.store(arrays.h + row * arrays.h_stride + unit, cell.h);
  if (arrays.gates == nullptr) return;
  float* const gates = arrays.gates + row * cell_gates * arrays.h_stride + unit;
  at.store(gates, cell.i);
  at.store(gates + units, cell.f);
  at.store(gates + 2 * units, cell.g);
  at.store(gates + 3 * units, cell.o);
  at.store(arrays.cells + row * arrays.h_stride + unit, cell.c);
}

// Copies a float matrix (rows, columns) between strides.
GENCORE_INLINE void copy_rows(std::int64_t rows, std::int64_t columns, const float* from, std::int64_t from_stride,
                              float* to, std::int64_t to_stride) {
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * to_stride, from + r * from_stride, 4 * static_cast<std::size_t>(columns));
  }
}

// A part of the next panel, fetched into the second-level cache while a tile of this one is computed; there they stay
// where they are few.
GENCORE_INLINE void fetch_part(const float* panel, std::int64_t floats, std::int64_t panels, std::int64_t part,
                               std::int64_t parts) {
  if (panels * floats < resident_weights) return;
  for (std::int64_t i = floats * part / parts / line * line; i < floats * (part + 1) / parts; i += line) {
    __builtin_prefetch(panel + i, 0, 2);
  }
}

inline void sweep_forward(const Sweep& sweep, const GatePanels& panels, const ForwardArrays& arrays, float* memory) {
  ForwardState state(sweep, panels.units, arrays.x_depth, memory);
  const std::int64_t units = panels.units, depth = state.depth, x_depth = arrays.x_depth;
  if (arrays.h0 != nullptr) {
    copy_rows(sweep.positions, units, arrays.h0, units, state.before + sweep.up * depth + x_depth, depth);
  }
  if (arrays.c0 != nullptr) copy_rows(1, sweep.positions * units, arrays.c0, 0, state.cells, 0);
  alignas(64) float sums[cell_rows * cell_gates * lanes];
  for (std::int64_t d = 0; d < sweep.steps; ++d, state.turn()) {
    const std::int64_t first = sweep.first(d), rows = sweep.end(d) - first;
    if (x_depth > 0) {
      copy_rows(rows, x_depth, arrays.x + sweep.row(first, d) * x_depth, sweep.position_stride * x_depth,
                state.before + (first + sweep.up) * depth, depth);
    }
    const Cut tiles{rows, ceil_div(rows, cell_rows)};
    for (std::int64_t q = 0; q < panels.count(); ++q) {
      const std::int64_t unit = q * lanes, next = q + 1 < panels.count() ? q + 1 : 0;
      for (std::int64_t tile = 0; tile < tiles.count; ++tile) {
        const std::int64_t begin = first + tiles.begin(tile), end = first + tiles.begin(tile + 1);
        fetch_part(panels.at(next), panels.depth * cell_gates * lanes, panels.count(), tile, tiles.count);
        multiply_gates(end - begin, Segment{state.before + begin * depth, panels.at(q), panels.depth}, depth, sums);
        for (std::int64_t p = begin; p < end; ++p) {
          const float* of_row = sums + (p - begin) * cell_gates * lanes;
          const std::int64_t row = sweep.row(p, d);
          if (unit + lanes <= units) {
            finish_gates(sweep, arrays, state, row, p, unit, of_row, WholeVector{});
          } else {
            finish_gates(sweep, arrays, state, row, p, unit, of_row, PartVector{static_cast<int>(units - unit)});
          }
        }
      }
    }
  }
  if (arrays.c_last != nullptr) copy_rows(1, sweep.positions * units, state.cells, 0, arrays.c_last, 0);
}

// --- back -------------------------------------------------------------------------------------------------------------

struct BackwardArrays {
  const float* grad_h;
  std::int64_t h_stride;
  const float *gates, *cells;
  float* grad_z;             // as gates
  const float *c0, *grad_c;  // (positions, units): initial cells, gradient of the last
  float *grad_h0, *grad_c0;  // (positions, units)
};

// Memory of a backward sweep: the gradients of two steps' gates, those of the cells, a row of zeros.
struct BackwardState {
  std::int64_t units, lead, stride;  // lead: rows of zeros before the first
  float *after, *now, *cells, *zeros;

  // Of a row of gates. Rows that taps join follow each other; others lie an odd number of cache lines apart, lest they
  // compete for the same places.
  static std::int64_t row_stride(const Sweep& sweep, std::int64_t units) {
    return sweep.taps > 1 ? cell_gates * units : odd_lines(cell_gates * units);
  }
  static std::int64_t floats(const Sweep& sweep, std::int64_t units) {
    return 2 * round_up(sweep.padded() * row_stride(sweep, units), line) + round_up(sweep.positions * units, line) +
           round_up(units, line);
  }
  BackwardState(const Sweep& sweep, std::int64_t units, float* memory)
      : units(units), lead(sweep.taps - 1 - sweep.up), stride(row_stride(sweep, units)) {
    const std::int64_t gates = round_up(sweep.padded() * stride, line);
    std::memset(memory, 0, 4 * static_cast<std::size_t>(floats(sweep, units)));
    after = memory;
    now = memory + gates;
    cells = memory + 2 * gates;
    zeros = cells + round_up(sweep.positions * units, line);
  }
  GENCORE_INLINE void turn() {
    float* const swapped = after;
    after = now;
    now = swapped;
  }
};

// Goes back through the cells of `lanes` units of one position, whose h has the gradient dh less that of the output.
template <class At>
GENCORE_INLINE void back_through_cell(const Sweep& sweep, const BackwardArrays& arrays, const BackwardState& state,
                                      std::int64_t row, std::int64_t position, const float* before, std::int64_t unit,
                                      F dh, const At& at) {
  const std::int64_t units = state.units, place = row * cell_gates * arrays.h_stride + unit;
  const float* gates = arrays.gates + place;
  const std::int64_t next = row - sweep.step_stride;  // perhaps beyond the image, where fetching does no harm
  fetch_gates(arrays.gates + next * cell_gates * arrays.h_stride + unit, units);
  __builtin_prefetch(arrays.grad_h + next * arrays.h_stride + unit, 0, 3);
  __builtin_prefetch(arrays.cells + (next - sweep.step_stride) * arrays.h_stride + unit, 0, 3);  // the cell before it
  const F i = at.load(gates), f = at.load(gates + units), g = at.load(gates + 2 * units),
          o = at.load(gates + 3 * units);
  const F t = tanh(at.load(arrays.cells + row * arrays.h_stride + unit));
  float* const cells = state.cells + position * units + unit;
  dh += at.load(arrays.grad_h + row * arrays.h_stride + unit);
  const F dc = fma(dh * o, (1.0f - t) * (1.0f + t), at.load(cells));
  at.store(cells, dc * f);
  const F dz[cell_gates] = {dc * g * (i * (1.0f - i)), dc * at.load(before + unit) * (f * (1.0f - f)),
                            dc * i * ((1.0f - g) * (1.0f + g)), dh * t * (o * (1.0f - o))};
  float *const grad = arrays.grad_z + place, *const kept = state.now + (position + state.lead) * state.stride + unit;
  GENCORE_UNROLL
  for (int k = 0; k < cell_gates; ++k) {
    at.store(grad + k * units, dz[k]);
    at.store(kept + k * units, dz[k]);
  }
}

// For each tile of positions and panel of units of a step: body(first position, end, first unit, span, sums), where
// sums[p - first position][unit] are the gradients that come from the step after, if there is one.
template <class Body>
GENCORE_INLINE void for_each_gradient_tile(const UnitPanels& panels, const BackwardState& state, std::int64_t first,
                                           std::int64_t end, bool last, const Body& body) {
  alignas(64) float sums[register_rows * panel_columns];
  const Cut tiles{end - first, ceil_div(end - first, register_rows)};
  for (std::int64_t q = 0; q < panels.cut().count; ++q) {
    const Span span = panels.span(q);
    const std::int64_t stride = span.vectors * lanes, next = q + 1 < panels.cut().count ? q + 1 : 0;
    for (std::int64_t tile = 0; tile < tiles.count; ++tile) {
      const std::int64_t p = first + tiles.begin(tile), p_end = first + tiles.begin(tile + 1);
      if (last) {
        std::memset(sums, 0, sizeof sums);
      } else {
        fetch_part(panels.at(next), panels.depth() * panels.span(next).vectors * lanes, panels.cut().count, tile,
                   tiles.count);
        const Segment segment{state.after + p * state.stride, panels.at(q), panels.depth()};
        const TileArguments t{&segment, 1, state.stride, stride, stride - lanes, sums, panel_columns, span, true};
        tile_kernel<false>(p_end - p, span)(t);
      }
      body(p, p_end, panels.column(q), span, sums);
    }
  }
}

inline void sweep_backward(const Sweep& sweep, const UnitPanels& panels, const BackwardArrays& arrays, float* memory) {
  const std::int64_t units = panels.units;
  BackwardState state(sweep, units, memory);
  if (arrays.grad_c != nullptr) copy_rows(1, sweep.positions * units, arrays.grad_c, 0, state.cells, 0);
  for (std::int64_t d = sweep.steps - 1; d >= 0; --d, state.turn()) {
    const auto before = [&](std::int64_t p) -> const float* {
      if (sweep.has(p, d - 1)) return arrays.cells + sweep.row(p, d - 1) * arrays.h_stride;
      return arrays.c0 != nullptr ? arrays.c0 + p * units : state.zeros;
    };
    const auto back = [&](std::int64_t p, std::int64_t p_end, std::int64_t unit, const Span& span, const float* sums) {
      for (; p < p_end; ++p, sums += panel_columns) {
        const float* c = before(p);
        const std::int64_t row = sweep.row(p, d);
        for_each_vector(span.columns, [&](std::int64_t j, const auto& at) {
          back_through_cell(sweep, arrays, state, row, p, c, unit + j, at.load(sums + j), at);
        });
      }
    };
    for_each_gradient_tile(panels, state, sweep.first(d), sweep.end(d), d + 1 == sweep.steps, back);
  }
  if (arrays.grad_c0 != nullptr) copy_rows(1, sweep.positions * units, state.cells, 0, arrays.grad_c0, 0);
  if (arrays.grad_h0 == nullptr) return;
  const auto out = [&](std::int64_t p, std::int64_t p_end, std::int64_t unit, const Span& span, const float* sums) {
    copy_rows(p_end - p, span.columns, sums, panel_columns, arrays.grad_h0 + p * units + unit, units);
  };
  for_each_gradient_tile(panels, state, 0, sweep.positions, sweep.steps == 0, out);
}

}  // namespace gencore::GENCORE_LEVEL
