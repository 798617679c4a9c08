#include "core/pack.h"

#include <algorithm>
#include <cstring>

namespace rattention {

namespace {

float bfloat_to_float(std::uint32_t half) {
  const std::uint32_t bits = half << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Masks in place of branches, so that loops over it become vector code. Subnormal halves are m 2^-24.
float half_to_float(std::uint32_t half) {
  const std::uint32_t magnitude = half & 0x7FFFU;
  const std::uint32_t endless = 0U - static_cast<std::uint32_t>(magnitude > 0x7BFFU);
  const std::uint32_t subnormal = 0U - static_cast<std::uint32_t>(magnitude < 0x400U);
  const std::uint32_t normal_bits = (magnitude << 13) + (112U << 23) + (endless & (112U << 23));
  const float small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F;
  std::uint32_t small_bits;
  std::memcpy(&small_bits, &small, sizeof small_bits);
  const std::uint32_t bits = (half & 0x8000U) << 16 | (small_bits & subnormal) | (normal_bits & ~subnormal);
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <float (*ToFloat)(std::uint32_t)>
void widen_halves(const std::byte* source, std::int64_t n, float* floats) {
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint16_t half;
    std::memcpy(&half, source + 2 * i, sizeof half);
    floats[i] = ToFloat(half);
  }
}

}  // namespace

void widen(const std::byte* source, DType dtype, std::int64_t n, float* floats) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(floats, source, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case DType::bf16:
      return widen_halves<bfloat_to_float>(source, n, floats);
    case DType::f16:
      return widen_halves<half_to_float>(source, n, floats);
  }
}

void load_row(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t i, float* row, std::int64_t padded) {
  const std::byte* source = view.row(b, h, i);
  const std::int64_t dim = view.dim();
  const std::int64_t step = view.strides[3];
  if (step == size_of(view.dtype)) {
    widen(source, view.dtype, dim, row);
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
