#include "kernels/tile_kernels.h"

#include "core/isa.h"

namespace rattention {

const TileKernels& tile_kernels() {
  if (active_isa() >= Isa::avx512) return detail::kAvx512Kernels;
  if (active_isa() >= Isa::avx2) return detail::kAvx2Kernels;
  return detail::kBaselineKernels;
}

}  // namespace rattention
