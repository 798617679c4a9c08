#define RATTENTION_LANES 16
#define RATTENTION_KERNELS kAvx512RowKernels
#include "kernels/row_kernels.inl"
