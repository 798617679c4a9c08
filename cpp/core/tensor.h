// Views of arrays that others own. A view knows its shape and strides and nothing of ownership.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace rattention {

// Of a >= 0 and b > 0.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

enum class DType : std::uint8_t { f32, bf16, f16 };

std::int64_t size_of(DType dtype);
const char* name_of(DType dtype);

// A read-only array [batch, heads, length, dim]. Strides count bytes and may be zero, negative or no multiple of the
// element size, so that any NumPy array can be read where it lies.
struct TensorView {
  const std::byte* data = nullptr;
  DType dtype = DType::f32;
  std::array<std::int64_t, 4> shape{};
  std::array<std::int64_t, 4> strides{};

  std::int64_t batch() const { return shape[0]; }
  std::int64_t heads() const { return shape[1]; }
  std::int64_t length() const { return shape[2]; }
  std::int64_t dim() const { return shape[3]; }
  const std::byte* row(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return data + b * strides[0] + h * strides[1] + i * strides[2];
  }
  // Rows [first, last) of every head.
  TensorView rows(std::int64_t first, std::int64_t last) const {
    TensorView part = *this;
    part.data = row(0, 0, first);
    part.shape[2] = last - first;
    return part;
  }
};

// A freshly made, contiguous output [batch, heads, length, dim].
struct OutputView {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  std::array<std::int64_t, 4> shape{};

  std::byte* row(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return data + ((b * shape[1] + h) * shape[2] + i) * shape[3] * size_of(dtype);
  }
};

// A contiguous float32 array to read or to fill.
TensorView view_of(const float* data, const std::array<std::int64_t, 4>& shape);
OutputView output_of(float* data, const std::array<std::int64_t, 4>& shape);

std::string to_string(const std::array<std::int64_t, 4>& shape);

}  // namespace rattention
