// What simd.h takes from NEON as every 64-bit Arm processor has it.
#pragma once

#include <arm_neon.h>

#include "kernels/simd_types.h"

#if RATTENTION_LANES != 4
#error "NEON has vectors of 4 floats"
#endif

namespace {

constexpr int kRegisters = 32;

// Numbers of 16 bits in the lower halves.
inline IntVec load_halves(const void* p) {
  return __builtin_convertvector(*static_cast<const UnalignedHalves*>(p), IntVec);
}

inline Vec broadcast(float x) { return reinterpret_cast<Vec>(vdupq_n_f32(x)); }

// The larger of each lane; where either is NaN, the lane of `b`. NEON's own fmax would take the NaN, fmaxnm the number.
inline Vec max_or_second(Vec a, Vec b) { return a > b ? a : b; }

// The smaller of each lane; where either is NaN, the lane of `b`.
inline Vec min_or_second(Vec a, Vec b) { return a < b ? a : b; }

inline Vec square_root(Vec v) { return reinterpret_cast<Vec>(vsqrtq_f32(reinterpret_cast<float32x4_t>(v))); }

// Whether a lane of `a` is larger than that of `b`, or either is NaN.
inline bool any_above(Vec a, Vec b) {
  return vminvq_u32(vcleq_f32(reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b))) == 0;
}

// To nearest, NaN with the bits that fit. The mode that takes denormals for zero changes nothing: it is that of
// float32, where those of float16 are normal numbers.
inline Halves float_to_float16(Vec v) {
  return reinterpret_cast<Halves>(vcvt_f16_f32(reinterpret_cast<float32x4_t>(v)));
}

// To the compiler a number that is needed here, and another one from here on.
inline void keep(Vec& v) { asm volatile("" : "+w"(v)); }

}  // namespace
