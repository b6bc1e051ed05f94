// Products of small matrices on tensor cores, by one warp: d += a b with float32 sums, whose order the hardware chooses and
// which it may cut off instead of rounding (a sum of n products strays by up to n units in the last place of its largest
// partial sum). Products of bfloat16 and TF32 are exact in float32.
//
// Every lane of a warp calls these together. With g = lane / 4 and t = lane % 4, a lane holds of d (16 x 8):
//   d[0] (g, 2t)   d[1] (g, 2t + 1)   d[2] (g + 8, 2t)   d[3] (g + 8, 2t + 1)
// Needs compute capability 8.0.
#pragma once

#include "launch.cuh"

namespace gencore::cuda {

// a (16 x 16) and b (16 x 8) of bfloat16, two in a word, the first in its lower half:
//   a[0] (g, 2t), (g, 2t + 1)           a[1] (g + 8, 2t), (g + 8, 2t + 1)
//   a[2] (g, 2t + 8), (g, 2t + 9)       a[3] (g + 8, 2t + 8), (g + 8, 2t + 9)
//   b[0] (2t, g), (2t + 1, g)           b[1] (2t + 8, g), (2t + 9, g)
__device__ inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(__CUDACC__)
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  emulation::multiply_fragments<emulation::Bf16Fragments>(d, a, b);
#endif
}

// a (16 x 8) and b (8 x 8) of TF32, float32 whose last 13 bits are not read:
//   a[0] (g, t)   a[1] (g + 8, t)   a[2] (g, t + 4)   a[3] (g + 8, t + 4)
//   b[0] (t, g)   b[1] (t + 4, g)
__device__ inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(__CUDACC__)
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  emulation::multiply_fragments<emulation::Tf32Fragments>(d, a, b);
#endif
}

// The nearest bfloat16, ties to even, in the lower half of a word; NaN stays NaN.
__device__ inline unsigned round_to_bf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return bits >> 16 | 0x40u;
  return (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}

// The nearest TF32, ties away from 0, as cvt.rna rounds; NaN stays NaN.
__device__ inline unsigned round_to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  return x != x ? bits | 0x400000u : (bits + 0x1000u) & 0xFFFFE000u;
}

}  // namespace gencore::cuda
