// Which kernels are those of active_isa().
#include "kernels/bf16_kernels.h"
#include "kernels/fma_rate.h"
#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

namespace rattention {

const TileKernels& tile_kernels() { return detail::kNeonKernels; }

const RowKernels& row_kernels() { return detail::kNeonRowKernels; }

// Not every processor with NEON multiplies bfloat16.
const Bf16Kernels* bf16_kernels() { return nullptr; }

namespace detail {

const FmaLoop& fma_loop() { return kNeonFmaLoop; }

const FmaLoop* bf16_loop() { return nullptr; }

}  // namespace detail
}  // namespace rattention
