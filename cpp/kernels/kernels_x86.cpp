// Which kernels are those of active_isa().
#include "core/isa.h"
#include "kernels/bf16_kernels.h"
#include "kernels/fma_rate.h"
#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

namespace rattention {

const TileKernels& tile_kernels() {
  if (active_isa() >= Isa::avx512) return detail::kAvx512Kernels;
  if (active_isa() >= Isa::avx2) return detail::kAvx2Kernels;
  return detail::kBaselineKernels;
}

const RowKernels& row_kernels() {
  if (active_isa() >= Isa::avx512) return detail::kAvx512RowKernels;
  if (active_isa() >= Isa::avx2) return detail::kAvx2RowKernels;
  return detail::kBaselineRowKernels;
}

const Bf16Kernels* bf16_kernels() {
  if (active_isa() >= Isa::amx) return &detail::kAmxBf16Kernels;
  if (active_isa() >= Isa::avx512_bf16) return &detail::kAvx512Bf16Kernels;
  return nullptr;
}

namespace detail {

const FmaLoop& fma_loop() {
  if (active_isa() >= Isa::avx512) return kAvx512FmaLoop;
  if (active_isa() >= Isa::avx2) return kAvx2FmaLoop;
  return kBaselineFmaLoop;
}

const FmaLoop* bf16_loop() {
  if (active_isa() >= Isa::amx) return &kAmxBf16Loop;
  if (active_isa() >= Isa::avx512_bf16) return &kAvx512Bf16Loop;
  return nullptr;
}

}  // namespace detail
}  // namespace rattention
