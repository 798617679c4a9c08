// How fast a thread multiplies and adds: the bound that products are measured against.
#pragma once

#include <cstdint>

namespace rattention {

// Single-precision multiply-adds at full rate for about `seconds`, with the instructions of active_isa(): GFLOP/s of
// the calling thread.
double fma_rate(double seconds);

// The same of products of bfloat16 summed in float32, by those of bf16_kernels(); 0 without.
double bf16_rate(double seconds);

namespace detail {

struct FmaLoop {
  void (*run)(std::int64_t turns);
  double operations;  // of a turn
};

extern const FmaLoop kBaselineFmaLoop;
extern const FmaLoop kAvx2FmaLoop;
extern const FmaLoop kAvx512FmaLoop;
extern const FmaLoop kNeonFmaLoop;
extern const FmaLoop kAvx512Bf16Loop;
extern const FmaLoop kAmxBf16Loop;  // within a Bf16Session

// Those of active_isa(); nullptr without products of bfloat16.
const FmaLoop& fma_loop();
const FmaLoop* bf16_loop();

}  // namespace detail
}  // namespace rattention
