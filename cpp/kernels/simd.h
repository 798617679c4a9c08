// A float vector of RATTENTION_LANES lanes on GCC's vector extensions. Included only by sources that are compiled for
// one instruction set, so everything here has internal linkage.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__x86_64__)
#include "kernels/simd_x86.h"
#elif defined(__aarch64__)
#include "kernels/simd_arm.h"
#endif

namespace {

inline Vec bfloat16_to_float(IntVec half) { return reinterpret_cast<Vec>(half << 16); }
// bfloat16 as float32.
inline Vec load(const std::uint16_t* p) { return bfloat16_to_float(load_halves(p)); }

inline Vec lane_index() {
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<float>(i);
  return v;
}

typedef std::make_integer_sequence<int, kLanes> LaneIndices;

// Lane i of the result is lane i ^ Distance of v.
template <int Distance, int... Lane>
inline Vec exchange(Vec v, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(v, v, (Lane ^ Distance)...);
}
template <int Distance>
inline Vec exchange(Vec v) {
  return exchange<Distance>(v, LaneIndices{});
}

// Of two vectors that are one above the other in blocks of Width lanes: the left column of blocks, and the right one.
template <int Width, int... Lane>
inline Vec left_blocks(Vec a, Vec b, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane & Width) != 0 ? kLanes + Lane - Width : Lane)...);
}
template <int Width, int... Lane>
inline Vec right_blocks(Vec a, Vec b, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, ((Lane & Width) != 0 ? kLanes + Lane : Lane + Width)...);
}

// Pairwise, so that the order of additions is the same for every length of row.
inline float horizontal_sum(Vec v) {
#if RATTENTION_LANES == 16
  v += exchange<8>(v);
#endif
#if RATTENTION_LANES >= 8
  v += exchange<4>(v);
#endif
  v += exchange<2>(v);
  v += exchange<1>(v);
  return v[0];
}

inline float horizontal_max(Vec v) {
#if RATTENTION_LANES == 16
  v = max_or_second(v, exchange<8>(v));
#endif
#if RATTENTION_LANES >= 8
  v = max_or_second(v, exchange<4>(v));
#endif
  v = max_or_second(v, exchange<2>(v));
  v = max_or_second(v, exchange<1>(v));
  return v[0];
}

// Transposes a kLanes x kLanes block in registers, by exchanging ever larger blocks between pairs of vectors.
template <int Width = 1>
inline void transpose(Vec (&v)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & Width) != 0) continue;
    const Vec a = v[i];
    const Vec b = v[i + Width];
    v[i] = left_blocks<Width>(a, b, LaneIndices{});
    v[i + Width] = right_blocks<Width>(a, b, LaneIndices{});
  }
  if constexpr (2 * Width < kLanes) transpose<2 * Width>(v);
}

// Lane i of the result is horizontal_sum(v[i]), to the bit. Overwrites v.
template <int Width = kLanes / 2>
inline Vec horizontal_sums(Vec (&v)[kLanes]) {
#pragma GCC unroll 8
  for (int i = 0; i < Width; ++i) {
    v[i] =
        left_blocks<Width>(v[i], v[i + Width], LaneIndices{}) + right_blocks<Width>(v[i], v[i + Width], LaneIndices{});
  }
  if constexpr (Width > 1) {
    return horizontal_sums<Width / 2>(v);
  } else {
    return v[0];
  }
}

// 2^x for x <= 127, relative error below 2e-7. Results below 2^-126 are 0 (so is 2^-inf), NaN gives NaN, 2^0 is
// exactly 1. 2^x = 2^n 2^r with 2^r = 1 + r Q(r), Q fitted for least relative error.
inline Vec exp2_vector(Vec x) {
#if RATTENTION_LANES == 16
  // n = floor(x), r in [0, 1): vreduce gives r (0 for -inf) and vscalef takes the floor of x itself.
  constexpr int kRoundDownQuietly = 0x09;
  const Vec r =
      reinterpret_cast<Vec>(_mm512_maskz_reduce_ps(kAllLanes, reinterpret_cast<__m512>(x), kRoundDownQuietly));
  Vec q = broadcast(0x1.e974fep-10F);
  q = q * r + broadcast(0x1.277854p-7F);
  q = q * r + broadcast(0x1.c91ce6p-5F);
  q = q * r + broadcast(0x1.ebdb56p-3F);
  q = q * r + broadcast(0x1.62e4bap-1F);
  const Vec mantissa = q * r + broadcast(1.0F);
  return reinterpret_cast<Vec>(
      _mm512_maskz_scalef_ps(kAllLanes, reinterpret_cast<__m512>(mantissa), reinterpret_cast<__m512>(x)));
#else
  // n = the nearest integer, |r| <= 1/2. Adding 1.5 * 2^23 rounds to an integer, kept in the low bits.
  const Vec magic = broadcast(12582912.0F);
  const Vec bounded = max_or_second(broadcast(-150.0F), x);
  const Vec shifted = bounded + magic;
  const Vec r = bounded - (shifted - magic);
  Vec q = broadcast(0x1.5bba14p-10F);
  q = q * r + broadcast(0x1.3cea88p-7F);
  q = q * r + broadcast(0x1.c6b752p-5F);
  q = q * r + broadcast(0x1.ebf9bcp-3F);
  q = q * r + broadcast(0x1.62e42ap-1F);
  const Vec mantissa = q * r + broadcast(1.0F);
  const IntVec exponent = reinterpret_cast<IntVec>(shifted) << 23;
  const Vec power = reinterpret_cast<Vec>(reinterpret_cast<IntVec>(mantissa) + exponent);
  return bounded < broadcast(-126.0F) ? broadcast(0.0F) : power;
#endif
}

// log2(x) as a sum: a whole number, and at most 1/2 beside it.
struct Log2 {
  Vec whole;
  Vec rest;
};

// Of normal x > 0, relative error below 2e-7; some finite numbers for all others. x = 2^n m with m between sqrt(1/2)
// and sqrt(2), and log2(m) = s P(s^2) for s = (m - 1) / (m + 1), P fitted for least relative error.
inline Log2 log2_parts(Vec x) {
  IntVec half;
  for (int i = 0; i < kLanes; ++i) half[i] = 0x3F3504F3;  // of sqrt(1/2)
  const IntVec above = reinterpret_cast<IntVec>(x) - half;
  const Vec m = reinterpret_cast<Vec>((above & 0x7FFFFF) + half);
  const Vec s = (m - broadcast(1.0F)) / (m + broadcast(1.0F));
  const Vec square = s * s;
  Vec p = broadcast(0x1.ba19p-2F);
  p = p * square + broadcast(0x1.27471cp-1F);
  p = p * square + broadcast(0x1.ec70e6p-1F);
  p = p * square + broadcast(0x1.715476p+1F);
  return {__builtin_convertvector(above >> 23, Vec), p * s};
}

inline Vec log2_vector(Vec x) {
  const Log2 parts = log2_parts(x);
  return parts.rest + parts.whole;
}

// The nearest whole number, for |x| < 2^22: adding 1.5 * 2^23 leaves no room for less.
inline Vec nearest(Vec x) {
  const Vec magic = broadcast(12582912.0F);
  const Vec shifted = x + magic;
  return shifted - magic;
}

// The last elements of a row as a whole vector.
inline Vec load_part(const float* x, std::int64_t n, float filling) {
  Vec v = broadcast(filling);
  for (std::int64_t i = 0; i < n; ++i) v[i] = x[i];
  return v;
}

inline void store_part(float* x, std::int64_t n, Vec v) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = v[i];
}

inline Vec max_of(Vec a, float b) { return a > broadcast(b) ? a : broadcast(b); }
inline Vec min_of(Vec a, float b) { return a < broadcast(b) ? a : broadcast(b); }

}  // namespace
