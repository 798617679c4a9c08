#include "core/row_kernels.h"

#include "core/isa.h"

namespace rattention {

const RowKernels& row_kernels() {
  switch (active_isa()) {
    case Isa::avx512:
      return detail::kAvx512RowKernels;
    case Isa::avx2:
      return detail::kAvx2RowKernels;
    case Isa::baseline:
      break;
  }
  return detail::kBaselineRowKernels;
}

}  // namespace rattention
