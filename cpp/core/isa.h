// Which instructions this process may use.
#pragma once

namespace rattention {

// Each has all that those before it have.
#if defined(__x86_64__)
// AMX stands for its tiles of bfloat16 and for AVX-512's conversions to that.
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx };
constexpr const char* kIsaNames[] = {"baseline", "avx2", "avx512", "avx512_bf16", "amx"};
#elif defined(__aarch64__)
enum class Isa { neon };
constexpr const char* kIsaNames[] = {"neon"};
#else
#error "rattention has kernels for x86-64 and for 64-bit Arm"
#endif

// The best instruction set that the processor, the system and the environment variable RATTENTION_MAX_ISA (one of
// kIsaNames) allow. Read once, at the first call.
Isa active_isa();
const char* name_of(Isa isa);

// Throws std::runtime_error where the processor lacks what even the first of Isa needs, or where RATTENTION_MAX_ISA
// names none of them.
void require_supported_cpu();

namespace detail {

// What the processor and the system allow, in isa_<processor>.cpp: at most `cap`, but where more is asked for by name.
Isa detected_isa(Isa cap);
// What the processor lacks, or nullptr.
const char* missing_baseline();

}  // namespace detail
}  // namespace rattention
