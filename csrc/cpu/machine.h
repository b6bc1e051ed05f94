// A restricted Boltzmann machine as the kernels hold it: weights packed for row sums in both directions, padded biases,
// and the steps that every sampler is made of.
#pragma once

#include "../runtime/reject.h"
#include "batch_bits.h"
#include "bernoulli.h"
#include "gencore/rbm.h"
#include "rowsum.h"

namespace gencore::GENCORE_LEVEL {

using runtime::Scratch;

struct Machine {
  std::int64_t n_visible, n_hidden;
  Panels to_hidden;   // rows: visible units; columns: hidden units
  Panels to_visible;  // the transpose
  float *b, *c;       // zero-padded to whole groups

  static std::size_t bytes(std::int64_t n_visible, std::int64_t n_hidden) {
    return 4 * static_cast<std::size_t>(Panels::float_count(n_visible, n_hidden) +
                                        Panels::float_count(n_hidden, n_visible) + round_up(n_visible, group_columns) +
                                        round_up(n_hidden, group_columns)) +
           256;
  }
};

inline float* padded_copy(Scratch& scratch, const float* v, std::int64_t n) {
  const std::int64_t padded = round_up(n, group_columns);
  float* copy = scratch.carve<float>(static_cast<std::size_t>(padded));
  for (std::int64_t i = 0; i < padded; ++i) copy[i] = i < n ? v[i] : 0.0f;
  return copy;
}

inline Panels pack_panels(const char* op, Scratch& scratch, const Matrix<const float>& w, bool transposed) {
  const std::int64_t rows = w.shape[transposed ? 1 : 0], columns = w.shape[transposed ? 0 : 1];
  const Panels p{scratch.carve<float>(static_cast<std::size_t>(Panels::float_count(rows, columns))), rows, columns};
  Flag bad;
  parallel_for(p.tiles(), [&](std::int64_t t) {
    if (!(transposed ? pack_tile_transposed(p, t, w.data) : pack_tile(p, t, w.data))) bad.raise();
  });
  if (bad.raised) runtime::reject_not_finite(op, "w", w.data, w.size());
  return p;
}

inline Machine pack_machine(const rbm::Parameters& op, const char* name, Scratch& scratch) {
  Machine m{op.w.shape[0], op.w.shape[1], {}, {}, nullptr, nullptr};
  m.to_hidden = pack_panels(name, scratch, op.w, false);
  m.to_visible = pack_panels(name, scratch, op.w, true);
  m.b = padded_copy(scratch, op.b.data, m.n_visible);
  m.c = padded_copy(scratch, op.c.data, m.n_hidden);
  return m;
}

GENCORE_INLINE States states_of(const Matrix<std::uint8_t>& m) {
  return {m.data, {m.shape[0], m.shape[1]}, StateType::u8};
}

// Where a block of rows finds its random numbers.
struct Coordinates {
  Key key;
  philox::Domain domain;  // hidden_head or visible_head
  std::int64_t step, first_row;
};

// Puts 128 drawn units of one row into its bits; where `keep` is set, units keep the value they have.
GENCORE_INLINE void put_group(std::uint64_t* bits, std::int64_t rows, std::int64_t row, std::int64_t first,
                              std::int64_t units, const std::uint64_t drawn[2], const std::uint64_t* keep,
                              std::int64_t keep_stride) {
  for (std::int64_t i = 0; i < 2 && first + 64 * i < units; ++i) {
    const std::int64_t w = first / 64 + i;
    std::uint64_t& word = bits[w * rows + row];
    const std::uint64_t kept = keep == nullptr ? 0 : keep[w * keep_stride];
    word = (word & kept) | (drawn[i] & ~kept);
  }
}

// Draws one side of a block of rows given the other: field(row, first, x, offset) turns sums into fields.
template <class Field>
GENCORE_INLINE void draw_side(const Panels& panels, const std::uint64_t* given, std::int64_t rows, float* x,
                              const Coordinates& at, std::uint64_t* drawn, const Field& field) {
  row_sums(panels, given, rows, x, [&](std::int64_t r, std::int64_t first, const float* sums) {
    std::uint64_t words[2];
    const auto draw = make_draw(at.key, at.domain, static_cast<std::uint64_t>(at.step),
                                static_cast<std::uint64_t>(at.first_row + r));
    draw_group(draw, first, panels.columns - first, [&](int offset) { return field(r, first, sums, offset); }, words);
    put_group(drawn, rows, r, first, panels.columns, words, nullptr, 0);
  });
}

}  // namespace gencore::GENCORE_LEVEL
