#define RATTENTION_LANES 16
#define RATTENTION_KERNELS kAvx512Kernels
#include "kernels/tile_kernels.inl"
