#include "core/pack.h"

#include <algorithm>
#include <cstring>

namespace rattention {

void load_row(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t i, float* row, std::int64_t padded) {
  const std::byte* source = view.row(b, h, i);
  const std::int64_t dim = view.dim();
  const std::int64_t step = view.strides[3];
  if (view.dtype == DType::f32 && step == 4) {
    std::memcpy(row, source, static_cast<std::size_t>(dim) * sizeof(float));
  } else if (view.dtype == DType::bf16 && step == 2) {
    for (std::int64_t d = 0; d < dim; ++d) {
      std::uint16_t half;
      std::memcpy(&half, source + 2 * d, sizeof half);
      const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
      std::memcpy(row + d, &bits, sizeof bits);
    }
  } else {
    for (std::int64_t d = 0; d < dim; ++d) row[d] = load_element(source + d * step, view.dtype);
  }
  std::fill(row + dim, row + padded, 0.0F);
}

const float* float_rows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t* stride) {
  const std::byte* first = view.row(b, h, 0);
  const bool adjacent = view.dtype == DType::f32 && (view.strides[3] == 4 || view.dim() == 1);
  if (!adjacent || view.strides[2] % 4 != 0 || reinterpret_cast<std::uintptr_t>(first) % alignof(float) != 0)
    return nullptr;
  *stride = view.strides[2] / 4;
  return reinterpret_cast<const float*>(first);
}

}  // namespace rattention
