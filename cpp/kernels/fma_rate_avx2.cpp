#define RATTENTION_LANES 8
#define RATTENTION_FMA_LOOP kAvx2FmaLoop
#include "kernels/fma_rate.inl"
