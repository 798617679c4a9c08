// See fma_rate.h. Compiled once per instruction set; internal linkage only.
#include <cstdint>

#include "kernels/fma_rate.h"
#include "kernels/simd.h"

namespace {

void run(std::int64_t turns) {
  // Twelve named sums: an array would be kept in memory by the barrier below.
  Vec a0 = broadcast(1.0F), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0, a9 = a0, a10 = a0,
      a11 = a0;
  const Vec m = broadcast(0.999999F);
  const Vec d = broadcast(1e-6F);
  for (std::int64_t i = 0; i < turns; ++i) {
    a0 = a0 * m + d, a1 = a1 * m + d, a2 = a2 * m + d, a3 = a3 * m + d, a4 = a4 * m + d, a5 = a5 * m + d;
    a6 = a6 * m + d, a7 = a7 * m + d, a8 = a8 * m + d, a9 = a9 * m + d, a10 = a10 * m + d, a11 = a11 * m + d;
#if RATTENTION_LANES == 16
    asm volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5));
    asm volatile("" : "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));
#else
    asm volatile("" : "+x"(a0), "+x"(a1), "+x"(a2), "+x"(a3), "+x"(a4), "+x"(a5));
    asm volatile("" : "+x"(a6), "+x"(a7), "+x"(a8), "+x"(a9), "+x"(a10), "+x"(a11));
#endif
  }
}

}  // namespace

namespace rattention::detail {

const FmaLoop RATTENTION_FMA_LOOP = {run, 12 * 2 * kLanes};

}  // namespace rattention::detail
