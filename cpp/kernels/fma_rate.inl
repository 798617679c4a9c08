// See fma_rate.h. Compiled once per instruction set; internal linkage only.
#include <cstdint>

#include "kernels/fma_rate.h"
#include "kernels/simd.h"

namespace {

// As many as a block of the products has: they must not wait for each other.
constexpr int kSums = kRegisters == 32 ? 24 : 12;

void run(std::int64_t turns) {
  Vec sums[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums[i] = broadcast(static_cast<float>(i));  // equal sums would be computed once
  Vec factor = broadcast(0.999999F);
  const Vec other = broadcast(1e-6F);
  for (std::int64_t i = 0; i < turns; ++i) {
#pragma GCC unroll 24
    for (Vec& sum : sums) {
      keep(factor);  // or one product would do for all
      sum += factor * other;
    }
  }
#pragma GCC unroll 24
  for (Vec& sum : sums) keep(sum);
}

}  // namespace

namespace rattention::detail {

const FmaLoop RATTENTION_FMA_LOOP = {run, kSums * 2 * kLanes};

}  // namespace rattention::detail
