#include "kernels/bf16_kernels.h"

#include "core/isa.h"

namespace rattention {

const Bf16Kernels* bf16_kernels() {
  if (active_isa() >= Isa::amx) return &detail::kAmxBf16Kernels;
  if (active_isa() >= Isa::avx512_bf16) return &detail::kAvx512Bf16Kernels;
  return nullptr;
}

}  // namespace rattention
