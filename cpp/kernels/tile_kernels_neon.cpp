#define RATTENTION_LANES 4
#define RATTENTION_KERNELS kNeonKernels
#include "kernels/tile_kernels.inl"
