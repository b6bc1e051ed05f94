// Which taps of a convolution count, and how the products that they make are cut: panels of output channels, and for each
// of them stretches of neighbouring inputs with the weights that they meet.
#pragma once

#include "../runtime/scratch.h"
#include "gemm.h"
#include "gencore/conv.h"

namespace gencore::GENCORE_LEVEL {

using runtime::Scratch;

struct Range {
  std::int64_t begin, end;
  bool empty() const { return begin >= end; }
};

// A convolution's shape as its three ops see it.
struct Taps {
  std::int64_t kh, kw, c_in, c_out, groups;
  conv::Mask mask;

  Taps(const std::int64_t (&kernel)[4], conv::Mask mask, std::int64_t groups)
      : kh(kernel[0]), kw(kernel[1]), c_in(kernel[2]), c_out(kernel[3]), groups(groups), mask(mask) {}
  Taps(const conv::Geometry& op, const conv::Images<const float>& w)
      : kh(w.shape[0]), kw(w.shape[1]), c_in(w.shape[2]), c_out(w.shape[3]), groups(op.channel_groups), mask(op.mask) {}

  // Columns of a kernel row: whole taps, and whether the last of them is the centre of a mask with colours.
  std::int64_t columns(std::int64_t ky) const {
    const std::int64_t row = kh / 2, column = kw / 2;
    switch (mask) {
      case conv::Mask::none: return kw;
      case conv::Mask::before: return ky < row ? kw : ky == row ? column + (groups > 1 ? 1 : 0) : 0;
      case conv::Mask::to_here: return ky < row ? kw : ky == row ? column + 1 : 0;
      case conv::Mask::above: return ky < row ? kw : 0;
      case conv::Mask::to_this_row: return ky <= row ? kw : 0;
    }
    return 0;
  }
  bool is_centre(std::int64_t ky, std::int64_t kx) const {
    return (mask == conv::Mask::before || mask == conv::Mask::to_here) && ky == kh / 2 && kx == kw / 2;
  }
  // Input channels that an output of colour g sees, and output channels that see an input of colour g.
  Range inputs(std::int64_t ky, std::int64_t kx, std::int64_t g) const {
    if (groups == 1 || !is_centre(ky, kx)) return {0, c_in};
    return {0, (mask == conv::Mask::before ? g : g + 1) * (c_in / groups)};
  }
  Range outputs(std::int64_t ky, std::int64_t kx, std::int64_t g) const {
    if (groups == 1 || !is_centre(ky, kx)) return {0, c_out};
    return {(mask == conv::Mask::before ? g + 1 : g) * (c_out / groups), c_out};
  }
};

// A stretch of a padded row of the input: `row` rows below and `first` floats right of where an output's window begins.
struct Stretch {
  std::int64_t row, first, length;
  std::int64_t weights;  // row of the packed weights of its panel
};

// Columns of the output that are computed together: the stretches they sum, and the weights, packed.
struct Panel {
  std::int64_t column, columns, depth;
  Stretch* stretches;
  std::int64_t count;
  float* weights;

  Span span() const { return Span(columns); }
  std::int64_t width() const { return span().vectors * lanes; }
  const float* row(std::int64_t r) const { return weights + r * width(); }
};

// All panels of an output whose channels come in `groups` colours. `collect(g, stretches)` writes the stretches of colour
// g, at most `most`, and returns how many.
struct Panels2d {
  Panel* panels;
  std::int64_t count = 0, most;

  template <class Collect>
  Panels2d(Scratch& scratch, std::int64_t channels, std::int64_t groups, std::int64_t most, std::int64_t depth,
           const Collect& collect)
      : panels(scratch.carve<Panel>(static_cast<std::size_t>(number(channels, groups)))), most(most) {
    const std::int64_t colour = channels / groups;
    for (std::int64_t g = 0; g < groups; ++g) {
      auto* stretches = scratch.carve<Stretch>(static_cast<std::size_t>(most));
      const std::int64_t found = collect(g, stretches);
      const Cut cut{ceil_div(colour, lanes), ceil_div(colour, panel_columns)};
      for (std::int64_t p = 0; p < cut.count; ++p) {
        const std::int64_t begin = cut.begin(p) * lanes, end = min_of(cut.begin(p + 1) * lanes, colour);
        Panel& panel = panels[count++];
        panel = {g * colour + begin, end - begin, 0, stretches, found, nullptr};
        panel.weights = scratch.carve<float>(static_cast<std::size_t>(depth * panel.width()));
        for (std::int64_t s = 0; s < found; ++s) panel.depth += stretches[s].length;
      }
    }
  }
  static std::int64_t number(std::int64_t channels, std::int64_t groups) {
    return groups * ceil_div(channels / groups, panel_columns);
  }
  static std::size_t bytes(std::int64_t channels, std::int64_t groups, std::int64_t most, std::int64_t depth) {
    const std::int64_t width = round_up(channels / groups, lanes) * groups, n = number(channels, groups);
    return static_cast<std::size_t>(4 * depth * width + n * (static_cast<std::int64_t>(sizeof(Panel)) + 64) +
                                    groups * (most * static_cast<std::int64_t>(sizeof(Stretch)) + 64) + 256);
  }
};

// The stretches of colour g, one for each row of taps.
inline std::int64_t forward_stretches(const Taps& taps, std::int64_t g, Stretch* out) {
  std::int64_t count = 0, weights = 0;
  for (std::int64_t ky = 0; ky < taps.kh; ++ky) {
    const std::int64_t columns = taps.columns(ky);
    if (columns == 0) continue;
    const std::int64_t length = (columns - 1) * taps.c_in + taps.inputs(ky, columns - 1, g).end;
    if (length == 0) continue;
    out[count++] = {ky, 0, length, weights};
    weights += length;
  }
  return count;
}

// Packs the weights of a panel: a stretch of pixels and their channels meets rows of w that follow each other.
inline void pack_forward(const Taps& taps, const float* w, const Panel& panel) {
  for (std::int64_t s = 0; s < panel.count; ++s) {
    const Stretch& stretch = panel.stretches[s];
    pack_rows(stretch.length, w + stretch.row * taps.kw * taps.c_in * taps.c_out + panel.column, taps.c_out,
              panel.span(), panel.weights + stretch.weights * panel.width());
  }
}

}  // namespace gencore::GENCORE_LEVEL
