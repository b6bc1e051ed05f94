// Masked layers, by tiles of inputs and units each by ascending degree: the mask is a staircase, and a tile's sums go as deep
// as its last unit sees, or begin where its first input is seen. Where a step of the stairs runs through a tile, masked
// weights are put there as zeros and not read. Degrees lie on the device, so their order is found there, by counting.
//
// The limit: the multiply-adds that the mask leaves at the rate of gemm.cuh, and for n units those of 128 / n of the dense
// product more. Finding the order compares each degree with each, k^2 + n^2 + 2 k n comparisons: 1.6 M for 784 x 500.
#include "activation.cuh"
#include "degrees.cuh"
#include "gencore/masked_linear.h"
#include "step_tile.cuh"
#include "table.h"

namespace gencore::cuda {
namespace {

using autoregressive::MaskedLinear;
using autoregressive::MaskedLinearInput;
using autoregressive::MaskedLinearWeight;

// --- the stairs ----------------------------------------------------------------------------------------------------------

// Inputs and units by ascending degree, equal ones as they lie: unit j sees the inputs before seen[j]; input i is seen by
// unit seen_by[i] and those behind it.
struct Stairs {
  const int *in, *out;  // where they lie
  const int *seen, *seen_by;
};

// A degree's place among those of its side, and how many of the other side come before it there.
struct Stand {
  Vector<const std::int64_t> own, other;
  bool strict, unit;
  int *lies, *limit;

  __device__ void operator()(const Team& team, std::int64_t i, bool exists) const {
    const int place = place_of(team, own, i, exists);
    int others = 0;
    for (std::int64_t j = team.rank; exists && j < other.shape[0]; j += team.size) {
      others += static_cast<int>(unit ? sees(own[i], other[j], strict) : !sees(other[j], own[i], strict));
    }
    others = team.sum(others);
    if (!exists || team.rank != 0) return;
    lies[place] = static_cast<int>(i);
    limit[place] = others;
  }
};

template <class Op>
std::size_t stairs_bytes(const Op& op) {
  return 2 * (DeviceScratch::bytes<int>(op.in_degree.shape[0]) + DeviceScratch::bytes<int>(op.out_degree.shape[0]));
}

template <class Op>
Stairs stairs_of(const Op& op, DeviceScratch& scratch) {
  const std::int64_t k = op.in_degree.shape[0], n = op.out_degree.shape[0];
  int *in = scratch.carve<int>(k), *out = scratch.carve<int>(n);
  int *seen = scratch.carve<int>(n), *seen_by = scratch.carve<int>(k);
  for_each_row(op, k, k + n, Stand{op.in_degree, op.out_degree, op.strict, false, in, seen_by});
  for_each_row(op, n, k + n, Stand{op.out_degree, op.in_degree, op.strict, true, out, seen});
  return {in, out, seen, seen_by};
}

// --- products up to the stairs -------------------------------------------------------------------------------------------

__device__ inline int at_most(int a, int b) { return a < b ? a : b; }

// The lines and columns of a block's tile, of m x n.
template <int rows>
struct Corner {
  std::int64_t line;
  int column, columns_end;
  __device__ explicit Corner(int n) {
    const int across = (n + tile_columns - 1) / tile_columns;
    line = static_cast<std::int64_t>(blockIdx.x) / across * (tile_side * rows);
    column = static_cast<int>(blockIdx.x) % across * tile_columns;
    columns_end = at_most(n, column + tile_columns);
  }
};

// Terms [at, end) of the sums, step by step.
struct Terms {
  int at, end;
  __device__ bool valid() const { return at < end; }
  __device__ void next() { at += tile_depth; }
};

// Sums up the block's tile; put(line, column, value) has those that exist.
template <class Steps, int rows, class Put>
__device__ void masked_tile(Steps steps, const Corner<rows>& corner, std::int64_t lines, const Put& put) {
  __shared__ typename Steps::Own::Memory memory;
  float sum[rows][tile_units] = {};
  Steps::Own::sum_up(memory, steps, sum);
  Steps::Own::each(sum, [&](int line, int column, float value) {
    if (corner.line + line >= lines || corner.column + column >= corner.columns_end) return;
    put(corner.line + line, corner.column + column, value);
  });
}

template <class T, int rows>
struct ForwardTerms : Terms {
  using Own = StepTile<rows, tile_units>;
  using Element = T;
  using A = typename Own::template Share<rows, true>;
  using B = typename Own::template Share<tile_units, false>;

  const MaskedLinear& op;
  const Stairs& stairs;
  Corner<rows> corner;
  int lies, seen;  // the unit whose weights the thread fetches

  __device__ ForwardTerms(const MaskedLinear& op, const Stairs& stairs, const Corner<rows>& corner)
      : Terms{0, stairs.seen[corner.columns_end - 1]}, op(op), stairs(stairs), corner(corner) {
    const int column = corner.column + B::line(0);  // the same for all of the thread's elements
    lies = column < corner.columns_end ? stairs.out[column] : 0;
    seen = column < corner.columns_end ? stairs.seen[column] : 0;
  }
  __device__ void fetch(A& a, B& b) const {
    a.fetch([&](int, int line, int t) {
      const bool exists = at + t < end && corner.line + line < op.x.shape[0];
      if (!exists) return 0.0f;
      return to_float(static_cast<const T*>(op.x.data)[(corner.line + line) * op.x.shape[1] + stairs.in[at + t]]);
    });
    b.fetch([&](int, int, int t) { return at + t < seen ? __ldg(op.w.row(stairs.in[at + t]) + lies) : 0.0f; });
  }
};

template <class T, int rows>
__global__ void __launch_bounds__(block_threads, 2) masked_forward(MaskedLinear op, Stairs stairs) {
  const Corner<rows> corner(static_cast<int>(op.out.shape[1]));
  masked_tile(ForwardTerms<T, rows>(op, stairs, corner), corner, op.out.shape[0],
              [&](std::int64_t line, int column, float value) {
    const int unit = stairs.out[column];
    if (op.bias.given()) value += op.bias[unit];
    op.out.row(line)[unit] = activated(op.activation, value);
  });
}

// The unit of a term differs within the step, the input is the column.
template <int rows>
struct InputTerms : Terms {
  using Own = StepTile<rows, tile_units>;
  using Element = float;
  using A = typename Own::template Share<rows, true>;
  using B = typename Own::template Share<tile_units, true>;

  const MaskedLinearInput& op;
  const Stairs& stairs;
  Corner<rows> corner;

  __device__ InputTerms(const MaskedLinearInput& op, const Stairs& stairs, const Corner<rows>& corner)
      : Terms{stairs.seen_by[corner.column], static_cast<int>(op.w.shape[1])}, op(op), stairs(stairs), corner(corner) {}
  __device__ void fetch(A& a, B& b) const {
    a.fetch([&](int, int line, int t) {
      const bool exists = at + t < end && corner.line + line < op.grad.shape[0];
      return exists ? __ldg(op.grad.row(corner.line + line) + stairs.out[at + t]) : 0.0f;
    });
    b.fetch([&](int, int line, int t) {
      const int column = corner.column + line;
      if (column >= corner.columns_end || at + t >= end || at + t < stairs.seen_by[column]) return 0.0f;
      return __ldg(op.w.row(stairs.in[column]) + stairs.out[at + t]);
    });
  }
};

template <int rows>
__global__ void __launch_bounds__(block_threads, 2) masked_input(MaskedLinearInput op, Stairs stairs) {
  const Corner<rows> corner(static_cast<int>(op.out.shape[1]));
  masked_tile(InputTerms<rows>(op, stairs, corner), corner, op.out.shape[0],
              [&](std::int64_t line, int column, float value) { op.out.row(line)[stairs.in[column]] = value; });
}

// Lines are inputs, columns are units, terms the rows of the batch: none in a tile that is masked.
template <class T, int rows>
struct WeightTerms : Terms {
  using Own = StepTile<rows, tile_units>;
  using Element = T;
  using A = typename Own::template Share<rows, false>;
  using B = typename Own::template Share<tile_units, false>;

  const MaskedLinearWeight& op;
  int input, unit;  // that the thread fetches; below 0: none

  __device__ WeightTerms(const MaskedLinearWeight& op, const Stairs& stairs, const Corner<rows>& corner)
      : Terms{0, corner.line < stairs.seen[corner.columns_end - 1] ? static_cast<int>(op.x.shape[0]) : 0}, op(op) {
    const std::int64_t line = corner.line + A::line(0);  // the same for all of the thread's elements
    const int column = corner.column + B::line(0);
    input = line < op.x.shape[1] ? stairs.in[line] : -1;
    unit = column < corner.columns_end ? stairs.out[column] : -1;
  }
  __device__ void fetch(A& a, B& b) const {
    a.fetch([&](int, int, int t) {
      const bool exists = at + t < end && input >= 0;
      return exists ? to_float(static_cast<const T*>(op.x.data)[(at + t) * op.x.shape[1] + input]) : 0.0f;
    });
    b.fetch([&](int, int, int t) { return at + t < end && unit >= 0 ? __ldg(op.grad.row(at + t) + unit) : 0.0f; });
  }
};

template <class T, int rows>
__global__ void __launch_bounds__(block_threads, 2) masked_weight(MaskedLinearWeight op, Stairs stairs) {
  const Corner<rows> corner(static_cast<int>(op.out.shape[1]));
  masked_tile(WeightTerms<T, rows>(op, stairs, corner), corner, op.out.shape[0],
              [&](std::int64_t line, int column, float value) {
    op.out.row(stairs.in[line])[stairs.out[column]] = column >= stairs.seen_by[line] ? value : 0.0f;
  });
}

// --- launching -----------------------------------------------------------------------------------------------------------

template <int rows, class Op>
void launch_tiles(const Op& op, void (*kernel)(Op, Stairs), const Stairs& stairs) {
  const std::int64_t tiles = ceil_div(op.out.shape[0], tile_side * rows) * ceil_div(op.out.shape[1], tile_columns);
  launch_blocks(op, tiles, block_threads, 0, kernel, op, stairs);
}

void masked_linear(const MaskedLinear& op) {
  if (op.out.size() == 0) return;
  DeviceScratch scratch(op, stairs_bytes(op));
  const Stairs stairs = stairs_of(op, scratch);
  with_tile(op, op.out.shape[0], op.out.shape[1], [&](auto rows) {
    constexpr int n = decltype(rows)::value;
    const bool bytes = op.x.type == StateType::u8;
    launch_tiles<n>(op, bytes ? masked_forward<std::uint8_t, n> : masked_forward<float, n>, stairs);
  });
}

void masked_linear_input(const MaskedLinearInput& op) {
  if (op.out.size() == 0) return;
  DeviceScratch scratch(op, stairs_bytes(op));
  const Stairs stairs = stairs_of(op, scratch);
  with_tile(op, op.out.shape[0], op.out.shape[1],
            [&](auto rows) { launch_tiles<decltype(rows)::value>(op, masked_input<decltype(rows)::value>, stairs); });
}

void masked_linear_weight(const MaskedLinearWeight& op) {
  if (op.out.size() == 0) return;
  DeviceScratch scratch(op, stairs_bytes(op));
  const Stairs stairs = stairs_of(op, scratch);
  with_tile(op, op.out.shape[0], op.out.shape[1], [&](auto rows) {
    constexpr int n = decltype(rows)::value;
    const bool bytes = op.x.type == StateType::u8;
    launch_tiles<n>(op, bytes ? masked_weight<std::uint8_t, n> : masked_weight<float, n>, stairs);
  });
}

}  // namespace

void fill_masked_linear(runtime::Table& table) {
  table.autoregressive.MaskedLinear = masked_linear;
  table.autoregressive.MaskedLinearInput = masked_linear_input;
  table.autoregressive.MaskedLinearWeight = masked_linear_weight;
}

}  // namespace gencore::cuda
