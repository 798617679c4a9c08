// How working memory, which counts floats, holds operands of bfloat16: two elements take the room of one.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "kernels/bf16_kernels.h"

namespace rattention {

inline Bf16* halves(float* pairs) { return reinterpret_cast<Bf16*>(pairs); }
inline const Bf16* halves(const float* pairs) { return reinterpret_cast<const Bf16*>(pairs); }

// Floats that a row of `dim` elements takes, filled up to whole steps of the summed dimension.
inline std::int64_t pairs_of_row(std::int64_t dim) {
  return ceil_div(dim, Bf16Kernels::kDepth) * Bf16Kernels::kDepth / 2;
}

// Left operands are multiplied in whole tile registers of rows.
inline std::int64_t rows_with_room(std::int64_t rows) { return rows + Bf16Kernels::kRows; }

}  // namespace rattention
