#define RATTENTION_LANES 16
#define RATTENTION_FMA_LOOP kAvx512FmaLoop
#include "kernels/fma_rate.inl"
