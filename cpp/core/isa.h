// Which instructions this process may use.
#pragma once

#include <string>

namespace rattention {

// Each has all that those before it have. AMX stands for its tiles of bfloat16 and for AVX-512's conversions to that.
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx };

// The best instruction set that the processor, the system (which lends AMX on request) and the environment variable
// RATTENTION_MAX_ISA (one of the names above) allow. Read once, at the first call. AVX-512's products of bfloat16 count
// where they are faster than those of float32: on AMD's processors, at twice their rate. On Intel's with AMX they ran
// at half of it; there they are taken only where the variable names them.
Isa active_isa();
const char* name_of(Isa isa);

// Throws std::runtime_error where the processor lacks what even the baseline needs (SSE4.2), or where
// RATTENTION_MAX_ISA names no known instruction set.
void require_supported_cpu();

}  // namespace rattention
