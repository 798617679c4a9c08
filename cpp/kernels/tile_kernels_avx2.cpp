#define RATTENTION_LANES 8
#define RATTENTION_KERNELS kAvx2Kernels
#include "kernels/tile_kernels.inl"
