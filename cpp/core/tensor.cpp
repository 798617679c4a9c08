#include "core/tensor.h"

#include <cmath>
#include <cstring>

#include "kernels/row_kernels.h"

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

}  // namespace

std::int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
  }
  return "unknown";
}

TensorView view_of(const float* data, const std::array<std::int64_t, 4>& shape) {
  const std::int64_t row = shape[3] * size_of(DType::f32);
  return {reinterpret_cast<const std::byte*>(data),
          DType::f32,
          shape,
          {shape[1] * shape[2] * row, shape[2] * row, row, size_of(DType::f32)}};
}

OutputView output_of(float* data, const std::array<std::int64_t, 4>& shape) {
  return {reinterpret_cast<std::byte*>(data), DType::f32, shape};
}

std::string to_string(const std::array<std::int64_t, 4>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

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

}  // namespace rattention
