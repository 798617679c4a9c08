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

Halves float_to_bfloat16(Vec v) {
  const Bits bits = reinterpret_cast<Bits>(v);
  const Bits rounded = bits + 0x7FFF + (bits >> 16 & 1);
  return __builtin_convertvector((v == v ? rounded : bits | 0x400000) >> 16, Halves);
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
