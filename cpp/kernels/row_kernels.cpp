#include "kernels/row_kernels.h"

#include "core/isa.h"

namespace rattention {

const RowKernels& row_kernels() {
  if (active_isa() >= Isa::avx512) return detail::kAvx512RowKernels;
  if (active_isa() >= Isa::avx2) return detail::kAvx2RowKernels;
  return detail::kBaselineRowKernels;
}

}  // namespace rattention
