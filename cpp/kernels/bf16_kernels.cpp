#include "kernels/bf16_kernels.h"

#include "core/isa.h"

namespace rattention {

const Bf16Kernels* bf16_kernels() { return active_isa() >= Isa::amx ? &detail::kAmxBf16Kernels : nullptr; }

}  // namespace rattention
