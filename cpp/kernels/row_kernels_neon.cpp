#define RATTENTION_LANES 4
#define RATTENTION_KERNELS kNeonRowKernels
#include "kernels/row_kernels.inl"
