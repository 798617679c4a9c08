#include "kernels/rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

namespace rattention {
namespace {

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1FU;
  const std::uint32_t mantissa = half & 0x3FFU;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) return from_bits(sign | 0x7F800000U | (mantissa << 13));
  return from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

template <typename Element>
const Element* rows_in_place(const TensorView& view, DType dtype, std::int64_t b, std::int64_t h,
                             std::int64_t* stride) {
  constexpr std::int64_t kSize = sizeof(Element);
  const std::byte* first = view.row(b, h, 0);
  const bool adjacent = view.dtype == dtype && (view.strides[3] == kSize || view.dim() == 1);
  if (!adjacent || view.strides[2] % kSize != 0 || reinterpret_cast<std::uintptr_t>(first) % alignof(Element) != 0)
    return nullptr;
  *stride = view.strides[2] / kSize;
  return reinterpret_cast<const Element*>(first);
}

}  // namespace

float load_element(const std::byte* source, DType dtype) {
  if (dtype == DType::f32) {
    float x;
    std::memcpy(&x, source, sizeof x);
    return x;
  }
  std::uint16_t bits;
  std::memcpy(&bits, source, sizeof bits);
  return dtype == DType::bf16 ? from_bits(static_cast<std::uint32_t>(bits) << 16) : half_to_float(bits);
}

void widen(const std::byte* source, DType dtype, std::int64_t n, float* floats) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(floats, source, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case DType::bf16:
      row_kernels().widen_bfloat16(source, n, floats);
      return;
    case DType::f16:
      row_kernels().widen_float16(source, n, floats);
      return;
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

void store_row(const float* source, std::int64_t n, std::byte* destination, DType dtype) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(destination, source, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case DType::bf16:
      row_kernels().narrow_bfloat16(source, n, destination);
      return;
    case DType::f16:
      row_kernels().narrow_float16(source, n, destination);
      return;
  }
}

void copy_halves(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t i, std::uint16_t* row,
                 std::int64_t padded) {
  const std::byte* source = view.row(b, h, i);
  const std::int64_t dim = view.dim();
  const std::int64_t step = view.strides[3];
  if (step == 2) {
    std::memcpy(row, source, static_cast<std::size_t>(dim) * 2);
  } else {
    for (std::int64_t d = 0; d < dim; ++d) std::memcpy(row + d, source + d * step, 2);
  }
  std::fill(row + dim, row + padded, std::uint16_t{0});
}

const float* float_rows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t* stride) {
  return rows_in_place<float>(view, DType::f32, b, h, stride);
}

const std::uint16_t* bf16_rows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t* stride) {
  return rows_in_place<std::uint16_t>(view, DType::bf16, b, h, stride);
}

const float* vector_rows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t* stride) {
  const std::int64_t lanes = tile_kernels().lanes;
  const float* rows = float_rows(view, b, h, stride);
  if (rows == nullptr || view.dim() % lanes != 0 || *stride % lanes != 0) return nullptr;
  const auto vector_bytes = static_cast<std::size_t>(lanes) * sizeof(float);
  return reinterpret_cast<std::uintptr_t>(rows) % vector_bytes == 0 ? rows : nullptr;
}

}  // namespace rattention
