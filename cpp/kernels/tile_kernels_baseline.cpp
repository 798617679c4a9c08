#define RATTENTION_LANES 4
#define RATTENTION_KERNELS kBaselineKernels
#include "kernels/tile_kernels.inl"
