// Which instructions this process may use.
#pragma once

#include <string>

namespace rattention {

enum class Isa { baseline, avx2, avx512 };

// The best instruction set that both the processor and the environment variable RATTENTION_MAX_ISA
// ("baseline", "avx2" or "avx512") allow. Read once, at the first call.
Isa active_isa();
const char* name_of(Isa isa);

// Throws std::runtime_error where the processor lacks what even the baseline needs (SSE4.2), or where
// RATTENTION_MAX_ISA names no known instruction set.
void require_supported_cpu();

}  // namespace rattention
