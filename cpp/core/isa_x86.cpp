#include "core/isa.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rattention::detail {
namespace {

// Linux lends the tile registers, 8 KiB more state per thread, only to processes that ask for them. A refusal is not an
// error: a process may have signal stacks too small for that state.
bool lent_tile_registers() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_amx() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("amx-tile") &&
         __builtin_cpu_supports("amx-bf16") && lent_tile_registers();
}

// AVX-512's products of bfloat16 count where they are faster than those of float32: on AMD's processors, at twice their
// rate. On Intel's with AMX they ran at half of it; there they are taken only where the cap names them.
bool has_fast_avx512_bf16(Isa cap) {
  return __builtin_cpu_supports("avx512bf16") && (__builtin_cpu_is("amd") || cap == Isa::avx512_bf16);
}

}  // namespace

Isa detected_isa(Isa cap) {
  __builtin_cpu_init();
  if (has_avx512()) {
    if (cap == Isa::amx && has_amx()) return Isa::amx;
    return has_fast_avx512_bf16(cap) ? Isa::avx512_bf16 : Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return Isa::avx2;
  return Isa::baseline;
}

const char* missing_baseline() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) return nullptr;
  return "rattention needs an x86-64 processor with SSE4.2; this one lacks it";
}

}  // namespace rattention::detail
