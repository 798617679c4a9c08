#include "core/isa.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rattention {
namespace {

constexpr Isa kAll[] = {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

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

bool has_fast_avx512_bf16(Isa cap) {
  return __builtin_cpu_supports("avx512bf16") && (__builtin_cpu_is("amd") || cap == Isa::avx512_bf16);
}

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

Isa cap_from_environment() {
  const char* text = std::getenv("RATTENTION_MAX_ISA");
  if (text == nullptr || *text == '\0') return Isa::amx;
  const std::string name = text;
  for (const Isa isa : kAll) {
    if (name == name_of(isa)) return isa;
  }
  throw std::runtime_error("RATTENTION_MAX_ISA is '" + name +
                           "'; allowed are baseline, avx2, avx512, avx512_bf16 and amx");
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

Isa active_isa() {
  static const Isa isa = [] {
    const Isa cap = cap_from_environment();
    return std::min(detected_isa(cap), cap);
  }();
  return isa;
}

void require_supported_cpu() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("sse4.2")) {
    throw std::runtime_error("rattention needs an x86-64 processor with SSE4.2; this one lacks it");
  }
  active_isa();
}

}  // namespace rattention
