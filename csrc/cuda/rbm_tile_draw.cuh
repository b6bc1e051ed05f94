// States of chains that are bits, and draws of them from a warp's sums where they lie.
#pragma once

#include "rbm_chains.cuh"
#include "rbm_fragments.cuh"

namespace gencore::cuda {

// The states of one side for the chains of a block: unit u is bit u % 32 of word u / 32. Rows begin an odd number of words
// apart, so that eight chains are on different banks.
struct PackedSide {
  unsigned* words;
  std::int64_t units;

  static GENCORE_INLINE std::int64_t stride(std::int64_t units) { return (units + word_units - 1) / word_units | 1; }
  __device__ std::int64_t stride() const { return stride(units); }
  __device__ unsigned* row(int chain) const { return words + chain * stride(); }
  __device__ std::uint8_t& byte_of(int chain, std::int64_t unit) const {
    return reinterpret_cast<std::uint8_t*>(row(chain))[unit / 8];
  }
  __device__ bool on(int chain, std::int64_t unit) const {
    return (row(chain)[unit / word_units] >> (unit % word_units) & 1u) != 0;
  }
};

// Both sides, in a block's memory.
struct PackedStates {
  PackedSide visible, hidden;

  static GENCORE_INLINE std::int64_t bytes(const RoundedMachine& m, std::int64_t chains) {
    return block_bytes<unsigned>(chains * PackedSide::stride(m.to_visible.units)) +
           block_bytes<unsigned>(chains * PackedSide::stride(m.to_hidden.units));
  }
  __device__ PackedStates(const RoundedMachine& m, int chains, BlockMemory& memory)
      : visible(carve(m.to_visible.units, chains, memory)), hidden(carve(m.to_hidden.units, chains, memory)) {}

 private:
  __device__ static PackedSide carve(std::int64_t units, int chains, BlockMemory& memory) {
    return {memory.carve<unsigned>(chains * PackedSide::stride(units)), units};
  }
};

// The states of `chains` chains, whose first is the op's `first_row`, by the threads of a block, which must wait for each
// other afterwards. Chains that there are not have no unit on; nor have units beyond a side's.
__device__ inline void begin_chains(const rbm::GibbsChain& op, std::int64_t first_row, int chains,
                                    const PackedStates& states) {
  const auto& [visible, hidden] = states;
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
  const std::int64_t stride = visible.stride();
  for (std::int64_t i = warp_index(); i < chains * stride; i += warps_of_block()) {
    const std::int64_t row = first_row + i / stride, unit = i % stride * word_units + lane;
    const unsigned word = __ballot_sync(all_lanes,
                                        row < op.v.shape[0] && unit < visible.units && is_on(op.v, row, unit));
    if (lane == 0) visible.words[i] = word;
  }
  for (std::int64_t i = threadIdx.x; i < chains * hidden.stride(); i += blockDim.x) hidden.words[i] = 0;
}

// Hands over chains first, first + every, ... of `chains`.
__device__ inline void end_chains(const rbm::GibbsChain& op, std::int64_t first_row, int chains, int first, int every,
                                  const PackedSide& visible) {
  for (int c = first; c < chains && first_row + c < op.v.shape[0]; c += every) {
    for (std::int64_t u = threadIdx.x; u < visible.units; u += blockDim.x) {
      put_state(op.v_out, first_row + c, u, visible.on(c, u));
    }
  }
}

// Draws the units of some fragments of a tile, one side of a Gibbs step of a warp's chains.
struct TileDraw {
  const rbm::GibbsChain& op;
  const RoundedDirection& d;
  const PackedSide& drawn;
  std::int64_t first_row;   // of the op: the side's first chain
  std::int64_t first_unit;  // of the tile
  int first_fragment;       // 0 or 4
  philox::Domain domain;
  std::int64_t step;
  bool clamped;

  // put(chain, bits), bits being the same in lanes 4 g to 4 g + 3: byte f of them is the chain's units of fragment
  // first_fragment + f. All have read by then what is clamped. A loop that is not unrolled, so that draws are compiled
  // once: the sums move up instead.
  template <int blocks, int held, class Put>
  __device__ void each(int first_chain, TileSums<blocks, held>& sums, const Put& put) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_lanes;
#pragma unroll 1
    for (int r = 0; r < 2 * blocks; ++r) {
      const int chain = first_chain + 8 * r + lane / 4;
      unsigned bits[held / 4] = {};
      if (first_row + chain < op.v.shape[0]) {
        draw_lane(first_row + chain, sums[0], bits);
        if (clamped) keep_clamped(chain, bits);
      }
#pragma unroll
      for (int i = 0; i < held / 4; ++i) {
        bits[i] |= __shfl_xor_sync(all_lanes, bits[i], 1);
        bits[i] |= __shfl_xor_sync(all_lanes, bits[i], 2);
      }
      __syncwarp();
      put(chain, bits);
#pragma unroll
      for (int b = 0; b < blocks; ++b) {
#pragma unroll
        for (int f = 0; f < held; ++f) {
          sums[b][f][0] = sums[b][f][2];
          sums[b][f][1] = sums[b][f][3];
          if (b + 1 == blocks) continue;
          sums[b][f][2] = sums[b + 1][f][0];
          sums[b][f][3] = sums[b + 1][f][1];
        }
      }
    }
  }

  // A chain's units of fragment first_fragment + f, into `side`.
  __device__ void put(const PackedSide& side, int chain, int f, unsigned bits) const {
    const std::int64_t unit = unit_of(f, 0);
    if (unit < side.units) side.byte_of(chain, unit) = static_cast<std::uint8_t>(bits);
  }

 private:
  __device__ std::int64_t unit_of(int f, int place) const {
    return first_unit + draw_stride * (first_fragment + f) + place;
  }

  // The lane's units of one row: 2 t + e of each eight, e being 0 and 1.
  template <int held>
  __device__ void draw_lane(std::int64_t row, const float (&sums)[held][4], unsigned (&bits)[held / 4]) const {
    const float beta = op.beta[op.beta.shape[0] == 1 ? 0 : row];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int place = static_cast<int>(threadIdx.x) % 4 * 2 + e;
      const UnitDraws draws({op.key, domain, static_cast<std::uint64_t>(op.first_step + step),
                             static_cast<std::uint64_t>(op.first_row + row)},
                            first_unit + place, first_fragment);
#pragma unroll
      for (int f = 0; f < held; ++f) {
        const std::int64_t unit = unit_of(f, place);
        if (unit >= d.units) break;
        const bool one = draws.drawn(f, odds_of((sums[f][e] + d.bias[unit]) * beta));
        bits[f / 4] |= static_cast<unsigned>(one) << (8 * (f % 4) + place);
      }
    }
  }

  // Units that are clamped keep the state they have, in a byte of this warp's alone.
  template <int words>
  __device__ void keep_clamped(int chain, unsigned (&bits)[words]) const {
    const std::uint8_t* mask = op.clamp.row(op.clamp.shape[0] == 1 ? 0 : first_row + chain);
#pragma unroll
    for (int i = 0; i < 8 * words; ++i) {
      const int f = i / 2, place = static_cast<int>(threadIdx.x) % 4 * 2 + i % 2, at = 8 * (f % 4) + place;
      const std::int64_t unit = unit_of(f, place);
      if (unit >= drawn.units || mask[unit] == 0) continue;
      const unsigned kept = drawn.byte_of(chain, unit) >> place & 1u;
      bits[f / 4] = (bits[f / 4] & ~(1u << at)) | kept << at;
    }
  }
};

}  // namespace gencore::cuda
