#define RATTENTION_LANES 8
#define RATTENTION_KERNELS kAvx2RowKernels
#include "kernels/row_kernels.inl"
