#define RATTENTION_LANES 4
#define RATTENTION_FMA_LOOP kNeonFmaLoop
#include "kernels/fma_rate.inl"
