#include "core/tensor.h"

namespace rattention {
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

}  // namespace rattention
