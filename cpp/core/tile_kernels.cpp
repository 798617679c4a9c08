#include "core/tile_kernels.h"

#include "core/isa.h"

namespace rattention {

const TileKernels& tile_kernels() {
  switch (active_isa()) {
    case Isa::avx512:
      return detail::kAvx512Kernels;
    case Isa::avx2:
      return detail::kAvx2Kernels;
    case Isa::baseline:
      break;
  }
  return detail::kBaselineKernels;
}

}  // namespace rattention
