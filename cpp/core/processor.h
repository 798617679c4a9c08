// What the processor is told beyond C++.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace rattention {

// FloatMode is how this thread's floating-point arithmetic rounds, and what it makes of denormals.
#if defined(__x86_64__)

using FloatMode = unsigned;
constexpr FloatMode kDenormalsAreZero = 0x8040U;  // results, and operands

inline FloatMode float_mode() { return _mm_getcsr(); }
inline void set_float_mode(FloatMode mode) { _mm_setcsr(mode); }

// Between two looks at what a loop waits for.
inline void pause_briefly() { _mm_pause(); }

#elif defined(__aarch64__)

using FloatMode = std::uint64_t;
constexpr FloatMode kDenormalsAreZero = 1U << 24;  // FPCR.FZ: results and operands, not those of float16

inline FloatMode float_mode() {
  FloatMode mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }

inline void pause_briefly() { asm volatile("yield"); }

#endif

}  // namespace rattention
