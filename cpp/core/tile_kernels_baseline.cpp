#define RATTENTION_LANES 4
#define RATTENTION_KERNELS kBaselineKernels
#include "core/tile_kernels.inl"
