// See row_kernels.h: numbers of 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

// Exponents move from a bias of 15 to one of 127; that of infinity and NaN twice as far. Subnormal halves are m 2^-24.
Vec float16_to_float(IntVec half) {
  const IntVec magnitude = half & 0x7FFF;
  const IntVec rebias = IntVec{} + (112 << 23);
  const IntVec endless = magnitude > 0x7BFF;
  const IntVec normal = (magnitude << 13) + rebias + (endless & rebias);
  const Vec subnormal = __builtin_convertvector(magnitude, Vec) * broadcast(0x1p-24F);
  const IntVec bits = magnitude < 0x400 ? reinterpret_cast<IntVec>(subnormal) : normal;
  return reinterpret_cast<Vec>(bits | (half & 0x8000) << 16);
}

template <Vec (*ToFloat)(IntVec)>
void widen_halves(const std::byte* halves, int64_t n, float* floats) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(floats + i, ToFloat(load_halves(halves + 2 * i)));
  if (i == n) return;
  std::byte rest[2 * kLanes] = {};
  __builtin_memcpy(rest, halves + 2 * i, static_cast<std::size_t>(2 * (n - i)));
  const Vec last = ToFloat(load_halves(rest));
  for (int j = 0; i + j < n; ++j) floats[i + j] = last[j];
}

typedef std::uint32_t Bits __attribute__((vector_size(kVectorBytes)));
typedef std::uint16_t Halves __attribute__((vector_size(kLanes * 2)));

Halves float_to_bfloat16(Vec v) {
  const Bits bits = reinterpret_cast<Bits>(v);
  const Bits rounded = bits + 0x7FFF + (bits >> 16 & 1);
  return __builtin_convertvector((v == v ? rounded : bits | 0x400000) >> 16, Halves);
}

// Modes that take denormals for zero change nothing: those of float16 are normal numbers of float32.
Halves float_to_float16(Vec v) {
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

template <Halves (*ToHalves)(Vec)>
void narrow_halves(const float* floats, int64_t n, std::byte* halves) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Halves some = ToHalves(load(floats + i));
    __builtin_memcpy(halves + 2 * i, &some, sizeof some);
  }
  if (i == n) return;
  Vec rest = broadcast(0.0F);
  for (int j = 0; i + j < n; ++j) rest[j] = floats[i + j];
  const Halves last = ToHalves(rest);
  __builtin_memcpy(halves + 2 * i, &last, static_cast<std::size_t>(2 * (n - i)));
}

}  // namespace
