// Tensor cores: a warp's product of small matrices whose fragments its 32 lanes hold, by the layouts that the PTX manual
// gives for mma.sync. Each lane gathers a row and a column from the others and adds exact products in float32.
#pragma once

namespace emulation {

struct LaneFragments {
  unsigned a[4], b[2];
};

inline float float_of_bits(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// m16n8k16 of bfloat16: two neighbours in k share a register, registers are 8 apart.
struct Bf16Fragments {
  static constexpr unsigned depth = 16;
  static unsigned lane_of(unsigned k) { return k % 8 / 2; }  // of a group of four
  static unsigned register_of(unsigned k) { return k / 8; }
  static float value(unsigned bits, unsigned k) { return float_of_bits(k % 2 == 0 ? bits << 16 : bits & 0xFFFF0000u); }
};

// m16n8k8 of TF32: one a register, registers are 4 apart. The last 13 bits are not read.
struct Tf32Fragments {
  static constexpr unsigned depth = 8;
  static unsigned lane_of(unsigned k) { return k % 4; }
  static unsigned register_of(unsigned k) { return k / 4; }
  static float value(unsigned bits, unsigned) { return float_of_bits(bits & 0xFFFFE000u); }
};

template <class Fragments>
void multiply_fragments(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const Exchange<LaneFragments> all(0xFFFFFFFFu, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
  const unsigned group = lane() / 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned below = i / 2, column = 2 * (lane() % 4) + i % 2;  // row group + 8 below
    for (unsigned k = 0; k < Fragments::depth; ++k) {
      const unsigned from = Fragments::lane_of(k), at = Fragments::register_of(k);
      d[i] += Fragments::value(all.of(4 * group + from).a[below + 2 * at], k) *
              Fragments::value(all.of(4 * column + from).b[at], k);
    }
  }
}

}  // namespace emulation
