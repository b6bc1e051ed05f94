// Masked layers: the panels of gemm.h, each as deep as the staircase of its units (staircase.h) goes. Where a step runs
// through a panel the masked weights are packed as zeros, which is the only masked work that is left.
//
// The limit: the multiply-adds that the mask leaves, half of the dense product's if degrees are spread evenly; panels of 48
// units do 48 / n more of the whole (a tenth of what is left for n = 500), besides packing. On one core with a peak of 118
// GFLOP/s, 100 x 784 x 500: limit 0.33 ms, measured 0.44 forward, 0.40 for the input's gradient, 0.47 for the weights'; with
// bytes, 13 of 100 of them ones, 0.13 and 0.15. Degrees in any order: 0.61, 0.56, 0.70.
#include "gencore/masked_linear.h"

#include "../runtime/reject.h"
#include "../runtime/table.h"
#include "activation.h"
#include "batch_bits.h"
#include "rowsum.h"
#include "staircase.h"

namespace gencore::GENCORE_LEVEL {
namespace {

using autoregressive::MaskedLinear;
using autoregressive::MaskedLinearInput;
using autoregressive::MaskedLinearWeight;

// Columns [first, first + span.columns) of a panel: those of them that are masked are set to 0 in one packed row. Columns of
// a packed vector are neighbours; the last vector overlaps the one before.
GENCORE_INLINE void zero_columns(const Span& span, std::int64_t begin, std::int64_t end, float* row) {
  for (int v = 0; v < span.vectors; ++v) {
    const std::int64_t start = v + 1 == span.vectors ? span.last() : v * lanes;
    for (std::int64_t l = max_of(begin - start, 0); l < min_of(end - start, lanes); ++l) row[v * lanes + l] = 0;
  }
}

// Packs rows of a matrix that are not neighbours, or whose columns are not.
template <class At>
void pack_elements(std::int64_t depth, const Span& span, float* panel, const At& at) {
  for (int v = 0; v < span.vectors; ++v) {
    const std::int64_t start = v + 1 == span.vectors ? span.last() : v * lanes;
    const std::int64_t columns = min_of(lanes, span.columns - start);
    for (std::int64_t p = 0; p < depth; ++p) {
      for (std::int64_t l = 0; l < columns; ++l) panel[(p * span.vectors + v) * lanes + l] = at(p, start + l);
    }
  }
}

// Rows [begin, end) of one panel of a product, whose b is packed by pack(first k, depth, panel), 256 rows at a time.
template <class Pack, class Epilogue>
void multiply_packed(const Product& g, std::int64_t begin, std::int64_t end, std::int64_t column, const Span& span,
                     const Pack& pack, const Epilogue& epilogue) {
  const Cut blocks{g.k, max_of(ceil_div(g.k, depth_block), 1)};
  alignas(64) float panel[depth_block * panel_columns];
  for (std::int64_t i = 0; i < blocks.count; ++i) {
    const std::int64_t k = blocks.begin(i), depth = blocks.begin(i + 1) - k;
    pack(k, depth, panel);
    multiply_block(g, Slab{0, g.k, nullptr}, Block{begin, end, column, k, depth}, span, panel, span.vectors * lanes,
                   (span.vectors - 1) * lanes, Ahead{nullptr, 0, 0, 0}, epilogue);
  }
}

// body(first row, last, first column, span) for the panels of a result (m, n), cut by rows where there are few of them. The
// deepest panels come first: the last ones where depth grows, the first ones otherwise.
template <class Body>
void for_each_panel(std::int64_t m, std::int64_t n, std::int64_t k, bool last_first, const Body& body) {
  if (m == 0 || n == 0) return;
  const Cut panels{ceil_div(n, lanes), ceil_div(n, panel_columns)};
  const Cut blocks{m, max_of(min_of(ceil_div(enough_tasks, panels.count), m / least_rows), 1)};
  // For the choice of threads only: about half of the work is masked.
  const Product half{m, n, max_of(k / 2, 1), nullptr, 0, 0, nullptr, 0, 0, nullptr, 0};
  run_tasks(half, panels.count * blocks.count, [&](std::int64_t task) {
    const std::int64_t turn = task / blocks.count, block = task % blocks.count;
    const std::int64_t panel = last_first ? panels.count - 1 - turn : turn, column = panels.begin(panel) * lanes;
    body(blocks.begin(block), blocks.begin(block + 1), column,
         Span(min_of(panels.begin(panel + 1) * lanes, n) - column));
  });
}

// --- forward ------------------------------------------------------------------------------------------------------------

// Packs rows [k, k + depth) of the inputs by degree, for the units of a panel.
void pack_weights(const Staircase& stairs, const Matrix<const float>& w, std::int64_t column, const Span& span,
                  std::int64_t k, std::int64_t depth, float* panel) {
  const std::int64_t n = w.shape[1];
  const float* rows = w.data + k * n;
  if (stairs.out.in_order() && stairs.in.in_order()) {
    pack_rows(depth, rows + column, n, span, panel);
  } else if (stairs.out.in_order()) {
    for (std::int64_t p = 0; p < depth; ++p) {
      pack_rows(1, w.row(stairs.in[k + p]) + column, n, span, panel + p * span.vectors * lanes);
    }
  } else {
    pack_elements(depth, span, panel,
                  [&](std::int64_t p, std::int64_t j) { return w.row(stairs.in[k + p])[stairs.out[column + j]]; });
  }
  std::int64_t blind = 0;  // columns that do not see row p
  for (std::int64_t p = max_of(stairs.seen[column] - k, 0); p < depth; ++p) {
    while (blind < span.columns && stairs.seen[column + blind] <= k + p) ++blind;
    zero_columns(span, 0, blind, panel + p * span.vectors * lanes);
  }
}

template <class Epilogue>
void forward_floats(const MaskedLinear& op, const Staircase& stairs, const float* x, float* out,
                    const Epilogue& epilogue) {
  const std::int64_t m = op.out.shape[0], n = op.out.shape[1], k = op.w.shape[0];
  for_each_panel(m, n, k, true, [&](std::int64_t begin, std::int64_t end, std::int64_t column, const Span& span) {
    const Product g{m, n, stairs.seen[column + span.columns - 1], x, k, 1, nullptr, 0, 0, out, n};
    multiply_packed(g, begin, end, column, span, [&](std::int64_t first, std::int64_t depth, float* panel) {
      pack_weights(stairs, op.w, column, span, first, depth, panel);
    }, epilogue);
  });
}

// How many rows of a tile of panels count: as many as its last unit sees.
std::int64_t tile_depth(const Staircase& stairs, const Panels& panels, std::int64_t t) {
  return stairs.seen[min_of((t + 1) * tile_columns, panels.columns) - 1];
}

// Tile t of the weights for row sums, masked ones as 0, as deep as it counts and to a whole word.
void pack_masked_tile(const Staircase& stairs, const Matrix<const float>& w, const Panels& panels, std::int64_t t) {
  const std::int64_t first = t * tile_columns, width = panels.vectors(t) * lanes;
  const std::int64_t columns = min_of(width, panels.columns - first);
  const std::int64_t depth = min_of(round_up(tile_depth(stairs, panels, t), 64), panels.rows);
  std::int64_t blind = 0;
  for (std::int64_t r = 0; r < depth; ++r) {
    while (blind < columns && stairs.seen[first + blind] <= r) ++blind;
    const float* row = w.row(stairs.in[r]);
    float* to = panels.at(t, r);
    for (std::int64_t j = 0; j < blind; ++j) to[j] = 0;
    if (stairs.out.in_order()) {
      for (std::int64_t j = blind; j < columns; ++j) to[j] = row[first + j];
    } else {
      for (std::int64_t j = blind; j < columns; ++j) to[j] = row[stairs.out[first + j]];
    }
    for (std::int64_t j = columns; j < width; ++j) to[j] = 0;
  }
}

// x[r * tile_columns + j]: sums over the first `depth` rows of tile t, for `rows` rows of bits.
void sum_tile(const Panels& panels, std::int64_t t, std::int64_t depth, const std::uint64_t* bits, std::int64_t stride,
              std::int64_t rows, float* x) {
  if (depth == 0) std::memset(x, 0, 4 * static_cast<std::size_t>(rows * tile_columns));
  for (std::int64_t word = 0; 64 * word < depth; ++word) {
    add_selected<false>(panels.vectors(t), panels.at(t, 64 * word), bits + word * stride, rows, x, tile_columns,
                        word == 0, false);
  }
}

template <class Epilogue>
bool forward_bytes(const MaskedLinear& op, const Staircase& stairs, const std::uint8_t* x, float* out,
                   const Epilogue& epilogue) {
  const std::int64_t m = op.out.shape[0], n = op.out.shape[1], k = op.w.shape[0];
  if (m == 0 || n == 0) return true;
  const Blocks blocks(m, false);
  Scratch scratch(Bits::bytes(blocks, k) + 4 * static_cast<std::size_t>(Panels::float_count(k, n)) + 128);
  const Bits bits = Bits::carve(scratch, blocks, k);
  if (!pack_all(ConstStates{x, {m, k}, StateType::u8}, blocks, bits)) return false;
  const Panels panels{scratch.carve<float>(static_cast<std::size_t>(Panels::float_count(k, n))), k, n};
  parallel_for(panels.tiles(), [&](std::int64_t t) { pack_masked_tile(stairs, op.w, panels, panels.tiles() - 1 - t); });
  parallel_for(blocks.count(), [&](std::int64_t task) {
    const std::int64_t rows = blocks.size(task);
    Scratch local(4 * static_cast<std::size_t>(rows * tile_columns));
    float* sums = local.carve<float>(static_cast<std::size_t>(rows * tile_columns));
    for (std::int64_t t = 0; t < panels.tiles(); ++t) {
      const std::int64_t column = t * tile_columns, valid = min_of(tile_columns, n - column);
      sum_tile(panels, t, tile_depth(stairs, panels, t), bits.of(task), rows, rows, sums);
      for (std::int64_t r = 0; r < rows; ++r) {
        float* to = out + (blocks.first(task) + r) * n + column;
        for (std::int64_t j = 0; j < valid; j += lanes) {
          store_up_to(to + j, epilogue(load(sums + r * tile_columns + j), column + j), valid - j);
        }
      }
    }
  });
  return true;
}

void masked_linear(const MaskedLinear& op) {
  const std::int64_t m = op.out.shape[0], n = op.out.shape[1];
  const bool bytes = op.x.type == StateType::u8;
  Scratch order(Staircase::bytes(op));
  const Staircase stairs(order, op);
  Scratch scratch(by_degree_bytes(stairs.in, m, bytes ? 1 : 4) + by_degree_bytes(stairs.out, m + 1, 4) + 256);
  const float* bias = op.bias.given() ? by_degree(scratch, stairs.out, op.bias.data, 1) : nullptr;
  float* out = stairs.out.in_order() ? op.out.data : scratch.carve<float>(static_cast<std::size_t>(m * n));
  with_epilogue(op.activation, bias, n, true, [&](const auto& epilogue) {
    if (!bytes) {
      const float* x = by_degree(scratch, stairs.in, static_cast<const float*>(op.x.data), m);
      return forward_floats(op, stairs, x, out, epilogue);
    }
    const auto* x = by_degree(scratch, stairs.in, static_cast<const std::uint8_t*>(op.x.data), m);
    if (!forward_bytes(op, stairs, x, out, epilogue)) runtime::reject_states(MaskedLinear::name, "x", op.x);
  });
  if (!stairs.out.in_order()) to_places(stairs.out, out, m, op.out.data);
}

// --- gradient for the input ---------------------------------------------------------------------------------------------

// Packs the units [j, j + depth) by degree, which are the rows here, for the inputs of a panel.
void pack_transposed(const Staircase& stairs, const Matrix<const float>& w, std::int64_t column, const Span& span,
                     std::int64_t j, std::int64_t depth, float* panel) {
  const std::int64_t n = w.shape[1];
  if (stairs.out.in_order() && stairs.in.in_order()) {
    pack_columns(depth, w.row(column) + j, n, span, panel);
  } else {
    pack_elements(depth, span, panel,
                  [&](std::int64_t p, std::int64_t i) { return w.row(stairs.in[column + i])[stairs.out[j + p]]; });
  }
  std::int64_t seen = 0;  // columns that unit j + p sees
  for (std::int64_t p = 0; p < depth && j + p < stairs.seen_by[column + span.columns - 1]; ++p) {
    while (seen < span.columns && stairs.seen_by[column + seen] <= j + p) ++seen;
    zero_columns(span, seen, span.columns, panel + p * span.vectors * lanes);
  }
}

void masked_linear_input(const MaskedLinearInput& op) {
  const std::int64_t m = op.out.shape[0], k = op.out.shape[1], n = op.w.shape[1];
  Scratch order(Staircase::bytes(op));
  const Staircase stairs(order, op);
  Scratch scratch(by_degree_bytes(stairs.in, m, 4) + by_degree_bytes(stairs.out, m, 4) + 128);
  const float* grad = by_degree(scratch, stairs.out, op.grad.data, m);
  float* out = stairs.in.in_order() ? op.out.data : scratch.carve<float>(static_cast<std::size_t>(m * k));
  for_each_panel(m, k, n, false, [&](std::int64_t begin, std::int64_t end, std::int64_t column, const Span& span) {
    const std::int64_t first = stairs.seen_by[column];
    const Product g{m, k, n - first, grad + first, n, 1, nullptr, 0, 0, out, k};
    multiply_packed(g, begin, end, column, span, [&](std::int64_t j, std::int64_t depth, float* panel) {
      pack_transposed(stairs, op.w, column, span, first + j, depth, panel);
    }, Identity{});
  });
  if (!stairs.in.in_order()) to_places(stairs.in, out, m, op.out.data);
}

// --- gradient for the weights -------------------------------------------------------------------------------------------

// Puts `columns` finished sums of input i (by degree) for the units from `first` on where they belong: 0 where masked.
void store_weights(const MaskedLinearWeight& op, const Staircase& stairs, std::int64_t i, std::int64_t first,
                   std::int64_t columns, const float* sums) {
  float* row = op.out.row(stairs.in[i]);
  const std::int64_t blind = min_of(max_of(stairs.seen_by[i] - first, 0), columns);
  if (stairs.out.in_order()) {
    std::memset(row + first, 0, 4 * static_cast<std::size_t>(blind));
    if (sums != row + first) {
      std::memcpy(row + first + blind, sums + blind, 4 * static_cast<std::size_t>(columns - blind));
    }
    return;
  }
  for (std::int64_t j = 0; j < columns; ++j) row[stairs.out[first + j]] = j < blind ? 0.0f : sums[j];
}

void weight_floats(const MaskedLinearWeight& op, const Staircase& stairs, const float* x, const float* grad) {
  const std::int64_t m = op.x.shape[0], k = op.out.shape[0], n = op.out.shape[1];
  const bool direct = stairs.in.in_order() && stairs.out.in_order();
  for_each_panel(k, n, m, true, [&](std::int64_t begin, std::int64_t end, std::int64_t column, const Span& span) {
    const std::int64_t deepest = stairs.seen[column + span.columns - 1], stop = max_of(min_of(end, deepest), begin);
    const std::int64_t width = direct ? n : span.columns;
    Scratch local(direct ? 0 : 4 * static_cast<std::size_t>((stop - begin) * width) + 64);
    float* sums = direct ? op.out.row(begin) + column
                         : local.carve<float>(static_cast<std::size_t>((stop - begin) * width));
    if (stop > begin) {
      const Product g{stop - begin, n, m, x + begin, 1, k, nullptr, 0, 0, sums, width};
      multiply_packed(g, 0, stop - begin, 0, span, [&](std::int64_t first, std::int64_t depth, float* panel) {
        pack_rows(depth, grad + first * n + column, n, span, panel);
      }, Identity{});
    }
    const float nothing[panel_columns] = {};
    for (std::int64_t i = begin; i < end; ++i) {
      store_weights(op, stairs, i, column, span.columns, i < stop ? sums + (i - begin) * width : nothing);
    }
  });
}

bool weight_bytes(const MaskedLinearWeight& op, const Staircase& stairs, const std::uint8_t* x, const float* grad) {
  const std::int64_t m = op.x.shape[0], k = op.out.shape[0], n = op.out.shape[1];
  if (k == 0 || n == 0) return true;
  const Blocks stored(m, true), blocks(k, false);
  const std::int64_t words = word_count(m), stride = 64 * word_count(k);
  Scratch scratch(Bits::bytes(stored, k) + 8 * static_cast<std::size_t>(words * stride) +
                  4 * static_cast<std::size_t>(Panels::float_count(m, n)) + 256);
  const Bits bits = Bits::carve(scratch, stored, k);
  if (!pack_all(ConstStates{x, {m, k}, StateType::u8}, stored, bits)) return false;
  auto* transposed = scratch.carve<std::uint64_t>(static_cast<std::size_t>(words * stride));
  transpose_bits(bits, stored, k, transposed);
  const Panels panels{scratch.carve<float>(static_cast<std::size_t>(Panels::float_count(m, n))), m, n};
  parallel_for(panels.tiles(), [&](std::int64_t t) { pack_tile(panels, t, grad); });
  parallel_for(blocks.count(), [&](std::int64_t task) {
    const std::int64_t first = blocks.first(task), rows = blocks.size(task);
    Scratch local(4 * static_cast<std::size_t>(rows * tile_columns));
    float* sums = local.carve<float>(static_cast<std::size_t>(rows * tile_columns));
    for (std::int64_t t = 0; t < panels.tiles(); ++t) {
      const std::int64_t column = t * tile_columns, columns = min_of(tile_columns, n - column);
      const std::int64_t counted = max_of(min_of(rows, tile_depth(stairs, panels, t) - first), 0);
      sum_tile(panels, t, m, transposed + first, stride, counted, sums);
      std::memset(sums + counted * tile_columns, 0, 4 * static_cast<std::size_t>((rows - counted) * tile_columns));
      for (std::int64_t r = 0; r < rows; ++r) {
        store_weights(op, stairs, first + r, column, columns, sums + r * tile_columns);
      }
    }
  });
  return true;
}

void masked_linear_weight(const MaskedLinearWeight& op) {
  const std::int64_t m = op.x.shape[0];
  const bool bytes = op.x.type == StateType::u8;
  Scratch order(Staircase::bytes(op));
  const Staircase stairs(order, op);
  Scratch scratch(by_degree_bytes(stairs.in, m, bytes ? 1 : 4) + by_degree_bytes(stairs.out, m, 4) + 128);
  const float* grad = by_degree(scratch, stairs.out, op.grad.data, m);
  if (!bytes) {
    return weight_floats(op, stairs, by_degree(scratch, stairs.in, static_cast<const float*>(op.x.data), m), grad);
  }
  const auto* x = by_degree(scratch, stairs.in, static_cast<const std::uint8_t*>(op.x.data), m);
  if (!weight_bytes(op, stairs, x, grad)) runtime::reject_states(MaskedLinearWeight::name, "x", op.x);
}

}  // namespace

void fill_masked_linear(runtime::Table& table) {
  table.autoregressive.MaskedLinear = masked_linear;
  table.autoregressive.MaskedLinearInput = masked_linear_input;
  table.autoregressive.MaskedLinearWeight = masked_linear_weight;
}

}  // namespace gencore::GENCORE_LEVEL
