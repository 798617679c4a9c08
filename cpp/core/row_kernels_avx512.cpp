#define RATTENTION_LANES 16
#define RATTENTION_KERNELS kAvx512RowKernels
#include "core/row_kernels.inl"
