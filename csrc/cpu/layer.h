// The sums that feed one side of the machine, for any kind of states: row sums where they are binary, the dense product
// (whose bits agree) where they are real.
#pragma once

#include "gemm.h"
#include "machine.h"

namespace gencore::GENCORE_LEVEL {

// x = states w (or states w' for the visible side) by the dense product, for real-valued states.
inline void dense_fields(const float* states, std::int64_t rows, const Matrix<const float>& w, bool visible_side,
                         float* x) {
  const std::int64_t in = w.shape[visible_side ? 1 : 0], units = w.shape[visible_side ? 0 : 1], ld = w.shape[1];
  gemm(rows, units, in, states, in, std::int64_t{1}, w.data, visible_side ? std::int64_t{1} : ld,
       visible_side ? ld : std::int64_t{1}, x, units, Identity{});
}

// Calls consume(row, first, sums) for every row and group of 128 columns, whichever path made the sums. `sums` can be read
// a whole vector beyond the last column.
template <class Consume>
void for_each_group(const char* op, const Matrix<const float>& w, bool visible_side, const char* arg,
                    const ConstStates& states, const Consume& consume) {
  const std::int64_t n = states.shape[0], in = states.shape[1], units = w.shape[visible_side ? 0 : 1];
  const Blocks blocks(n, false);
  Scratch scratch(Bits::bytes(blocks, in) + 4 * static_cast<std::size_t>(Panels::float_count(in, units)) + 128);
  const Bits bits = Bits::carve(scratch, blocks, in);
  const Panels panels = pack_panels(op, scratch, w, visible_side);
  if (pack_all(states, blocks, bits)) {
    parallel_for(blocks.count(), [&](std::int64_t task) {
      const std::int64_t rows = blocks.size(task), first = blocks.first(task);
      Scratch local(4 * static_cast<std::size_t>(rows * group_columns));
      row_sums(panels, bits.of(task), rows, local.carve<float>(static_cast<std::size_t>(rows * group_columns)),
               [&](std::int64_t r, std::int64_t group, const float* sums) { consume(first + r, group, sums); });
    });
    return;
  }
  if (states.type == StateType::u8) runtime::reject_states(op, arg, states);
  const auto* real = static_cast<const float*>(states.data);
  check::finite(op, arg, real, n * in);
  constexpr std::int64_t chunk = 1024;  // rows whose sums are held at a time
  Scratch fields(4 * static_cast<std::size_t>(min_of(n, chunk) * units + lanes));
  float* x = fields.carve<float>(static_cast<std::size_t>(min_of(n, chunk) * units + lanes));
  for (std::int64_t begin = 0; begin < n; begin += chunk) {
    const std::int64_t rows = min_of(chunk, n - begin);
    dense_fields(real + begin * in, rows, w, visible_side, x);
    parallel_for(ceil_div(rows, 32), [&](std::int64_t task) {
      for (std::int64_t r = 32 * task; r < min_of(rows, 32 * task + 32); ++r) {
        for (std::int64_t first = 0; first < units; first += group_columns)
          consume(begin + r, first, x + r * units + first);
      }
    });
  }
}

}  // namespace gencore::GENCORE_LEVEL
