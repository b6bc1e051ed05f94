// Convolutions as products without a copy of every window, by the tiles of gemm.cuh. In a row of pixels the taps of one
// kernel row and their channels are neighbours in memory, and so are the weights that meet them: a stretch. Masked taps are in
// no stretch, and are neither read nor multiplied.
#pragma once

#include "gencore/conv.h"
#include "step_tile.cuh"

namespace gencore::cuda {

struct Range {
  int begin, end;
};

// A convolution's shape as its three ops see it.
struct Taps {
  int kh, kw, c_in, c_out, groups;
  conv::Mask mask;

  Taps(const conv::Geometry& op, const std::int64_t (&kernel)[4])
      : kh(static_cast<int>(kernel[0])),
        kw(static_cast<int>(kernel[1])),
        c_in(static_cast<int>(kernel[2])),
        c_out(static_cast<int>(kernel[3])),
        groups(static_cast<int>(op.channel_groups)),
        mask(op.mask) {}

  GENCORE_INLINE bool causal() const { return mask == conv::Mask::before || mask == conv::Mask::to_here; }
  // Columns of a kernel row: whole taps, and whether the last of them is the centre of a mask with colours.
  GENCORE_INLINE int columns(int ky) const {
    const int row = kh / 2;
    if (mask == conv::Mask::none || ky < row) return kw;
    if (ky > row || mask == conv::Mask::above) return 0;
    if (mask == conv::Mask::to_this_row) return kw;
    return kw / 2 + (mask == conv::Mask::to_here || groups > 1 ? 1 : 0);
  }
  GENCORE_INLINE bool is_centre(int ky, int kx) const { return causal() && ky == kh / 2 && kx == kw / 2; }
  // How many input channels an output of colour g sees, and which output channels see an input of colour g.
  GENCORE_INLINE int inputs(int ky, int kx, int g) const {
    if (groups == 1 || !is_centre(ky, kx)) return c_in;
    return (mask == conv::Mask::before ? g : g + 1) * (c_in / groups);
  }
  GENCORE_INLINE Range outputs(int ky, int kx, int g) const {
    if (groups == 1 || !is_centre(ky, kx)) return {0, c_out};
    return {(mask == conv::Mask::before ? g + 1 : g) * (c_out / groups), c_out};
  }
  // The stretch of a kernel row that outputs of colour g see.
  GENCORE_INLINE int stretch(int ky, int g) const {
    const int whole = columns(ky);
    return whole == 0 ? 0 : (whole - 1) * c_in + inputs(ky, whole - 1, g);
  }
};

// Channels [begin, end) of one colour, cut into tiles of `width`: tile t of groups * tiles_of(channels).
struct ChannelTiles {
  int colour, width, of_colour;
  ChannelTiles(int channels, int groups, int width)
      : colour(channels / groups), width(width), of_colour((channels / groups + width - 1) / width) {}
  GENCORE_INLINE int group(int tile) const { return tile / of_colour; }
  GENCORE_INLINE int begin(int tile) const { return group(tile) * colour + tile % of_colour * width; }
  GENCORE_INLINE int end(int tile) const { return (group(tile) + 1) * colour; }  // of the colour
};

// run(rows, units of a thread) for so many lines and channels of a colour.
template <class Op, class Run>
void with_conv_tile(const Op& op, std::int64_t lines, std::int64_t tiles_beside, std::int64_t channels,
                    const Run& run) {
  const auto with_units = [&](auto units) {
    const std::int64_t tiles = ceil_div(lines, tile_side * 8) * tiles_beside * ceil_div(channels, tile_side * units);
    if (lines > tile_side * 2 && tiles >= limits_of(Op::name, op.device).multiprocessors)
      return run(Number<8>{}, units);
    run(Number<2>{}, units);
  };
  if (channels > tile_side * 4) return with_units(Number<8>{});
  with_units(Number<2>{});
}

}  // namespace gencore::cuda
