#define RATTENTION_LANES 4
#define RATTENTION_KERNELS kBaselineRowKernels
#include "core/row_kernels.inl"
