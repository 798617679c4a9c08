#include "core/tensor.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace rattention {
namespace {

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

std::uint32_t to_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
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

std::uint16_t float_to_half(float x) {
  const std::uint32_t bits = to_bits(x);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const float magnitude = std::fabs(x);
  if (!(magnitude < 65520.0F)) {  // overflow, infinity or NaN
    return static_cast<std::uint16_t>(sign | (std::isnan(x) ? 0x7E00U : 0x7C00U));
  }
  if (magnitude < 6.103515625e-05F) {  // subnormal half: the unit is 2^-24
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::nearbyint(std::ldexp(magnitude, 24))));
  }
  const std::uint32_t absolute = bits & 0x7FFFFFFFU;
  const std::uint32_t rounded = absolute + 0xFFFU + ((absolute >> 13) & 1U);
  return static_cast<std::uint16_t>(sign | ((rounded - (112U << 23)) >> 13));
}

std::uint16_t float_to_bfloat(float x) {
  const std::uint32_t bits = to_bits(x);
  if (std::isnan(x)) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
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
  if (dtype == DType::f32) {
    std::memcpy(destination, source, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint16_t bits = dtype == DType::bf16 ? float_to_bfloat(source[i]) : float_to_half(source[i]);
    std::memcpy(destination + 2 * i, &bits, sizeof bits);
  }
}

}  // namespace rattention
