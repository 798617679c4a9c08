// What the kernels of bf16_kernels.h for AVX-512 and for AMX have in common: rows of values and of weights. Included
// once by each; internal linkage only, as in tile_kernels.inl.
#define RATTENTION_LANES 16
#include "kernels/bf16_kernels.h"
#include "kernels/simd.h"

namespace {

using rattention::Bf16;
using std::int64_t;

constexpr int64_t kPanel = rattention::Bf16Kernels::kPanel;

typedef Bf16 UnalignedHalves __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));
typedef Bf16 HalfVec __attribute__((vector_size(kVectorBytes)));
typedef Bf16 UnalignedHalfVec __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
typedef std::uint32_t PairVec __attribute__((vector_size(kVectorBytes)));
typedef std::uint32_t UnalignedPairs __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));

inline PairVec load_pairs(const Bf16* p) {
  return __builtin_convertvector(*reinterpret_cast<const UnalignedHalves*>(p), PairVec);
}

// Sets lanes with infinity or NaN to 0 and collects them.
inline PairVec finite(PairVec halves, PairVec* others) {
  constexpr std::uint32_t kExponent = 0x7F80;
  const auto other = reinterpret_cast<PairVec>((halves & kExponent) == kExponent);
  *others |= other;
  return halves & ~other;
}

bool any(PairVec lanes) {
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(lanes), reinterpret_cast<__m512i>(lanes)) != 0;
}

int pair_rows(const Bf16* row, const Bf16* next, int64_t n, Bf16* pairs) {
  PairVec others[2] = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    const PairVec low = finite(load_pairs(row + j), &others[0]);
    const PairVec high = finite(load_pairs(next + j), &others[1]);
    *reinterpret_cast<UnalignedPairs*>(pairs + 2 * j) = low | (high << 16);
  }
  return (any(others[0]) ? 1 : 0) + (any(others[1]) ? 2 : 0);
}

void round_pairs(const float* row, const float* next, int64_t n, Bf16* pairs) {
  for (int64_t j = 0; j < n; j += kLanes) {
    const auto both = reinterpret_cast<HalfVec>(
        _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(load(next + j)), reinterpret_cast<__m512>(load(row + j))));
    *reinterpret_cast<UnalignedHalfVec*>(pairs + 2 * j) =
        __builtin_shufflevector(both, both, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10,
                                26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
}

// exp2_vector with a term less: relative error below 3e-6, a thousandth of the rounding to bfloat16.
inline Vec coarse_exp2(Vec x) {
  constexpr int kRoundDownQuietly = 0x09;
  const Vec r =
      reinterpret_cast<Vec>(_mm512_maskz_reduce_ps(kAllLanes, reinterpret_cast<__m512>(x), kRoundDownQuietly));
  Vec q = broadcast(0x1.b7fcb0p-7F);
  q = q * r + broadcast(0x1.abf60ap-5F);
  q = q * r + broadcast(0x1.ee2496p-3F);
  q = q * r + broadcast(0x1.62d6c6p-1F);
  const Vec mantissa = q * r + broadcast(1.0F);
  return reinterpret_cast<Vec>(
      _mm512_maskz_scalef_ps(kAllLanes, reinterpret_cast<__m512>(mantissa), reinterpret_cast<__m512>(x)));
}

float exp2_rounded(const float* s, int64_t n, float factor, float shift, Bf16* p) {
  const Vec slope = broadcast(factor);
  const Vec offset = broadcast(shift);
  Vec total = broadcast(0.0F);
  Vec other = total;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    const Vec x = coarse_exp2((load(s + j) - offset) * slope);
    const Vec y = coarse_exp2((load(s + j + kLanes) - offset) * slope);
    total += x;
    other += y;
    *reinterpret_cast<UnalignedPairs*>(p + j) =
        reinterpret_cast<PairVec>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(y), reinterpret_cast<__m512>(x)));
  }
  for (; j < n; j += kLanes) {
    const Vec x = coarse_exp2((load(s + j) - offset) * slope);
    total += x;
    *reinterpret_cast<UnalignedHalves*>(p + j) =
        reinterpret_cast<UnalignedHalves>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x)));
  }
  return horizontal_sum(total + other);
}

}  // namespace
