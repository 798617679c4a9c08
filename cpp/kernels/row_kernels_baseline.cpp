#define RATTENTION_LANES 4
#define RATTENTION_KERNELS kBaselineRowKernels
#include "kernels/row_kernels.inl"
