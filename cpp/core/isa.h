// Which instructions this process may use.
#pragma once

#include <string>

namespace rattention {

// Each has all that those before it have. AMX stands for its tiles of bfloat16 and for AVX-512's conversions to that.
// AVX-512's own products of bfloat16 have no level: they ran at half the rate of float32 where they were measured.
enum class Isa { baseline, avx2, avx512, amx };

// The best instruction set that the processor, the system (which lends AMX on request) and the environment variable
// RATTENTION_MAX_ISA (one of the names above) allow. Read once, at the first call.
Isa active_isa();
const char* name_of(Isa isa);

// Throws std::runtime_error where the processor lacks what even the baseline needs (SSE4.2), or where
// RATTENTION_MAX_ISA names no known instruction set.
void require_supported_cpu();

}  // namespace rattention
