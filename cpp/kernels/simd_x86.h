// What simd.h takes from SSE4.2, AVX2 and AVX-512.
#pragma once

#include <immintrin.h>

#include "kernels/simd_types.h"

namespace {

constexpr int kRegisters = RATTENTION_LANES == 16 ? 32 : 16;

#if RATTENTION_LANES == 16
// GCC 12 warns that the unmasked forms of some AVX-512 intrinsics read an uninitialised register; a full mask costs
// nothing.
constexpr __mmask16 kAllLanes = 0xFFFF;
#endif

// Numbers of 16 bits in the lower halves. By intrinsics, because GCC 12 takes twice as many instructions.
inline IntVec load_halves(const void* p) {
#if RATTENTION_LANES == 16
  return reinterpret_cast<IntVec>(
      _mm512_maskz_cvtepu16_epi32(kAllLanes, _mm256_loadu_si256(static_cast<const __m256i*>(p))));
#elif RATTENTION_LANES == 8
  return reinterpret_cast<IntVec>(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
#else
  return __builtin_convertvector(*static_cast<const UnalignedHalves*>(p), IntVec);
#endif
}

// An explicit broadcast: GCC turns `Vec{} + x` into a broadcast and an addition, because 0 + -0 is not -0.
inline Vec broadcast(float x) {
#if RATTENTION_LANES == 16
  return reinterpret_cast<Vec>(_mm512_set1_ps(x));
#elif RATTENTION_LANES == 8
  return reinterpret_cast<Vec>(_mm256_set1_ps(x));
#else
  return reinterpret_cast<Vec>(_mm_set1_ps(x));
#endif
}

// The larger of each lane; where either is NaN, the lane of `b`.
inline Vec max_or_second(Vec a, Vec b) {
#if RATTENTION_LANES == 16
  return reinterpret_cast<Vec>(
      _mm512_maskz_max_ps(kAllLanes, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif RATTENTION_LANES == 8
  return reinterpret_cast<Vec>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return reinterpret_cast<Vec>(_mm_max_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b)));
#endif
}

// The smaller of each lane; where either is NaN, the lane of `b`.
inline Vec min_or_second(Vec a, Vec b) {
#if RATTENTION_LANES == 16
  return reinterpret_cast<Vec>(
      _mm512_maskz_min_ps(kAllLanes, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif RATTENTION_LANES == 8
  return reinterpret_cast<Vec>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return reinterpret_cast<Vec>(_mm_min_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b)));
#endif
}

inline Vec square_root(Vec v) {
#if RATTENTION_LANES == 16
  return reinterpret_cast<Vec>(_mm512_maskz_sqrt_ps(kAllLanes, reinterpret_cast<__m512>(v)));
#elif RATTENTION_LANES == 8
  return reinterpret_cast<Vec>(_mm256_sqrt_ps(reinterpret_cast<__m256>(v)));
#else
  return reinterpret_cast<Vec>(_mm_sqrt_ps(reinterpret_cast<__m128>(v)));
#endif
}

// Whether a lane of `a` is larger than that of `b`, or either is NaN.
inline bool any_above(Vec a, Vec b) {
#if RATTENTION_LANES == 16
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_NLE_UQ) != 0;
#elif RATTENTION_LANES == 8
  const __m256 above = _mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_NLE_UQ);
  return _mm256_movemask_ps(above) != 0;
#else
  return _mm_movemask_ps(_mm_cmpnle_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b))) != 0;
#endif
}

// To nearest, NaN with the bits that fit. Modes that take denormals for zero change nothing: those of float16 are
// normal numbers of float32.
inline Halves float_to_float16(Vec v) {
#if RATTENTION_LANES == 16
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return reinterpret_cast<Halves>(_mm512_maskz_cvtps_ph(kAllLanes, reinterpret_cast<__m512>(v), kNearest));
#elif RATTENTION_LANES == 8
  return reinterpret_cast<Halves>(
      _mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  const Bits bits = reinterpret_cast<Bits>(v);
  const Bits magnitude = bits & 0x7FFFFFFF;
  // Exponents move from a bias of 127 to one of 15, which wraps where the result is subnormal.
  const Bits normal = (magnitude + 0xFFF + (magnitude >> 13 & 1) - (112 << 23)) >> 13;
  // One unit of 1/2 is 2^-24, that of subnormal halves.
  const Bits subnormal = reinterpret_cast<Bits>(reinterpret_cast<Vec>(magnitude) + broadcast(0.5F)) - 0x3F000000;
  const Bits nan = (magnitude >> 13 & 0x3FF) | 0x7E00;
  Bits half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477FF000 ? Bits{} + 0x7C00 : half;
  half = magnitude > 0x7F800000 ? nan : half;
  return __builtin_convertvector(half | (bits >> 16 & 0x8000), Halves);
#endif
}

// To the compiler a number that is needed here, and another one from here on.
inline void keep(Vec& v) { asm volatile("" : "+x"(v)); }

}  // namespace
