// The weights of a machine rounded for tensor cores and laid out as the lanes of a warp take them, and a warp's sums over
// given units whose states are bits.
//
// A tile is what one warp computes at a time: every second eight of a group of 128 units, so that with d's layout (mma.cuh)
// the units of a lane are 16 apart and the Philox blocks of a row that it computes are its own, whole. Given units come in
// 32s, a word of a chain's states. Which of them meet in which product is free, since a sum may have any order: they are
// dealt out so that a lane makes 0s and 1s of a word's bits by a mask and a multiplication.
#pragma once

#include "mma.cuh"
#include "rbm_machine.cuh"

namespace gencore::cuda {

constexpr int fragment_units = 8;  // columns of a product
constexpr int tile_fragments = 8;  // fragment f of a tile: units 16 f + 0 .. 7 of its half of a group
constexpr int word_units = 32;
constexpr int fragment_rows = 16;  // chains of a product

// What a precision's products take. Of 32 given units, lane t of four has in slot s: units slots t + s and, where two share
// a word, slots t + s + 16. Products of depth 32 / (slots / 2) take two slots each.
struct Bf16 {
  static constexpr int slots = 4, per_slot = 2;
  // The states in slot s, from a word that is shifted to the lane's first: two of 1.0, which is 0x3F80.
  static __device__ unsigned states(unsigned shifted, int s) { return (shifted & 0x00010001u << s) * (0x3F80u >> s); }
  static __device__ unsigned rounded(float x) { return round_to_bf16(x); }
  static __device__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_bf16(d, a, b); }
};
struct Tf32 {
  static constexpr int slots = 8, per_slot = 1;
  static __device__ unsigned states(unsigned shifted, int s) { return (shifted & 1u << s) * (0x3F800000u >> s); }
  static __device__ unsigned rounded(float x) { return round_to_tf32(x); }
  static __device__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_tf32(d, a, b); }
};

// --- weights -----------------------------------------------------------------------------------------------------------

// What one side is computed from, as Direction: word [tile][32 given units][fragment][lane][slot] of w.
struct RoundedDirection {
  const unsigned* w;
  std::int64_t given, units;
  const float* bias;  // (units,)

  GENCORE_INLINE std::int64_t tiles() const { return 2 * ((units + group_units - 1) / group_units); }
  GENCORE_INLINE std::int64_t words() const { return (given + word_units - 1) / word_units; }  // of a chain's states
  GENCORE_INLINE std::int64_t tile_words(int slots) const { return words() * tile_fragments * warp_lanes * slots; }
  GENCORE_INLINE static std::int64_t first_unit(std::int64_t tile) {
    return tile / 2 * group_units + tile % 2 * fragment_units;
  }
  // Fragments of a tile that have units, the first ones.
  GENCORE_INLINE int fragments(std::int64_t tile) const {
    const std::int64_t rest = units - first_unit(tile);
    if (rest <= 0) return 0;
    return rest >= group_units ? tile_fragments : static_cast<int>((rest + draw_stride - 1) / draw_stride);
  }
};

struct RoundedMachine {
  RoundedDirection to_hidden, to_visible;
};

template <class Precision>
struct RoundWeights {
  Matrix<const float> w;
  RoundedDirection d;
  bool to_visible;
  unsigned* out;

  __device__ void operator()(std::int64_t i) const {
    const int slot = static_cast<int>(i % Precision::slots), lane = static_cast<int>(i / Precision::slots % warp_lanes);
    std::int64_t rest = i / (Precision::slots * warp_lanes);
    const std::int64_t fragment = rest % tile_fragments, word = rest / tile_fragments % d.words(),
                       tile = rest / tile_fragments / d.words();
    const std::int64_t unit = RoundedDirection::first_unit(tile) + draw_stride * fragment + lane / 4;
    unsigned bits = 0;
    for (int half = 0; half < Precision::per_slot; ++half) {
      const std::int64_t given = word_units * word + Precision::slots * (lane % 4) + slot + 16 * half;
      if (given >= d.given || unit >= d.units) continue;
      bits |= Precision::rounded(to_visible ? w.row(unit)[given] : w.row(given)[unit]) << 16 * half;
    }
    out[i] = bits;
  }
};

template <class Precision>
std::size_t rounded_bytes(const RoundedMachine& m) {
  return DeviceScratch::bytes<unsigned>(m.to_hidden.tiles() * m.to_hidden.tile_words(Precision::slots)) +
         DeviceScratch::bytes<unsigned>(m.to_visible.tiles() * m.to_visible.tile_words(Precision::slots));
}

// Without weights: sizes and biases.
inline RoundedMachine rounded_sizes(const rbm::Parameters& op) {
  const std::int64_t n_visible = op.w.shape[0], n_hidden = op.w.shape[1];
  return {{nullptr, n_visible, n_hidden, op.c.data}, {nullptr, n_hidden, n_visible, op.b.data}};
}

template <class Precision, class Op>
void round_weights(const Op& op, DeviceScratch& scratch, bool to_visible, RoundedDirection& d) {
  const std::int64_t words = d.tiles() * d.tile_words(Precision::slots);
  unsigned* w = scratch.carve<unsigned>(words);
  for_each_element(op, words, RoundWeights<Precision>{op.w, d, to_visible, w});
  d.w = w;
}

// --- sums --------------------------------------------------------------------------------------------------------------

// The sums of some fragments of a tile for 16 `blocks` chains, by one warp: d of each product.
template <int blocks, int held = tile_fragments>
using TileSums = float[blocks][held][4];

// A lane's part of some fragments of a tile for 32 given units: 16 words.
template <class Precision>
struct Weights {
  static constexpr int count = 16 / Precision::slots;
  unsigned slot[count][Precision::slots];

  // Fragments first, first + 1, ... from where the lane's part of the words begins, on chip or in device memory.
  template <bool OnChip>
  __device__ void load(const unsigned* w, int first, int fragments) {
#pragma unroll
    for (int f = 0; f < count; ++f) {
      if (first + f >= fragments) break;
      const uint4* from = reinterpret_cast<const uint4*>(w + (first + f) * warp_lanes * Precision::slots);
#pragma unroll
      for (int i = 0; i < Precision::slots; i += 4) {
        const uint4 four = OnChip ? from[i / 4] : __ldg(from + i / 4);
        slot[f][i] = four.x;
        slot[f][i + 1] = four.y;
        slot[f][i + 2] = four.z;
        slot[f][i + 3] = four.w;
      }
    }
  }
};

// sums += states weights for some fragments; word: of rows g and g + 8 of each product, shifted to the lane's first state.
template <class Precision, int blocks, int held>
__device__ void multiply_words(const unsigned (&word)[blocks][2], const Weights<Precision>& weights, int first,
                               int fragments, TileSums<blocks, held>& sums) {
#pragma unroll
  for (int s = 0; s < Precision::slots; s += 2) {
    unsigned a[blocks][4];
#pragma unroll
    for (int r = 0; r < blocks; ++r) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[r][i] = Precision::states(word[r][i % 2], s + i / 2);
    }
#pragma unroll
    for (int f = 0; f < Weights<Precision>::count; ++f) {
      if (first + f >= fragments) break;
      const unsigned b[2] = {weights.slot[f][s], weights.slot[f][s + 1]};
#pragma unroll
      for (int r = 0; r < blocks; ++r) Precision::multiply(sums[r][first + f], a[r], b);
    }
  }
}

// A lane's words of states, from word i of row g on.
template <int blocks>
__device__ void read_words(const unsigned* row, std::int64_t stride, int shift, unsigned (&word)[blocks][2]) {
#pragma unroll
  for (int r = 0; r < blocks; ++r) {
    word[r][0] = row[fragment_rows * r * stride] >> shift;
    word[r][1] = row[(fragment_rows * r + 8) * stride] >> shift;
  }
}

// sums += states weights, of rows of `stride` words of states, for one tile with so many fragments. The next weights are
// under way while some are multiplied.
template <class Precision, int blocks>
__device__ void add_products(const RoundedDirection& d, std::int64_t tile, int fragments, const unsigned* states,
                             std::int64_t stride, TileSums<blocks>& sums) {
  constexpr int slots = Precision::slots, count = Weights<Precision>::count, stages = tile_fragments / count;
  static_assert(stages % 2 == 0);  // so that stage 0 finds its weights in ahead[0]
  const int lane = static_cast<int>(threadIdx.x) % warp_lanes, shift = slots * (lane % 4);
  const std::int64_t words = d.words(), step = tile_fragments * warp_lanes * slots;
  const unsigned* w = d.w + tile * d.tile_words(slots) + lane * slots;
  const unsigned* row = states + lane / 4 * stride;
  Weights<Precision> ahead[2];
  ahead[0].template load<false>(w, 0, fragments);
  for (std::int64_t i = 0; i < words; ++i, w += step) {
    unsigned word[blocks][2];
    read_words(row + i, stride, shift, word);
#pragma unroll
    for (int stage = 0; stage < stages; ++stage) {
      if (stage + 1 < stages) {
        ahead[(stage + 1) % 2].template load<false>(w, (stage + 1) * count, fragments);
      } else if (i + 1 < words) {
        ahead[0].template load<false>(w + step, 0, fragments);
      }
      multiply_words<Precision>(word, ahead[stage % 2], stage * count, fragments, sums);
    }
  }
}

}  // namespace gencore::cuda
