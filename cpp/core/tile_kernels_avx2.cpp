#define RATTENTION_LANES 8
#define RATTENTION_KERNELS kAvx2Kernels
#include "core/tile_kernels.inl"
