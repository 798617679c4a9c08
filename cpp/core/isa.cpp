#include "core/isa.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace rattention {
namespace {

Isa detected_isa() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
  return Isa::baseline;
}

Isa cap_from_environment() {
  const char* text = std::getenv("RATTENTION_MAX_ISA");
  if (text == nullptr || *text == '\0') return Isa::avx512;
  const std::string name = text;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (name == name_of(isa)) return isa;
  }
  throw std::runtime_error("RATTENTION_MAX_ISA is '" + name + "'; allowed are baseline, avx2 and avx512");
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
  }
  return "unknown";
}

Isa active_isa() {
  static const Isa isa = std::min(detected_isa(), cap_from_environment());
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
