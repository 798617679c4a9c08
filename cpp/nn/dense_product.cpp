#include "nn/dense_product.h"

#include <algorithm>
#include <cmath>

#include "kernels/tile_kernels.h"

namespace rattention {
namespace {

// Of the weights at a time for all rows: 256 rows of a kernel's 16 columns are 16 KiB, from the first-level cache.
constexpr std::int64_t kDepth = 256;

float gelu(float x) { return 0.5F * x * std::erfc(-0.70710678F * x); }

float gelu_tanh(float x) { return 0.5F * x * (1.0F + std::tanh(0.79788456F * (x + 0.044715F * x * x * x))); }

float relu(float x) { return x < 0.0F ? 0.0F : x; }

float silu(float x) { return x / (1.0F + std::exp(-x)); }

template <float (*Function)(float)>
void apply(float* y, std::int64_t n) {
  std::transform(y, y + n, y, Function);
}

void activate(Activation activation, float* y, std::int64_t n) {
  switch (activation) {
    case Activation::none:
      return;
    case Activation::gelu:
      return apply<gelu>(y, n);
    case Activation::gelu_tanh:
      return apply<gelu_tanh>(y, n);
    case Activation::relu:
      return apply<relu>(y, n);
    case Activation::silu:
      return apply<silu>(y, n);
  }
}

}  // namespace

std::optional<std::string> onednn_version() { return std::nullopt; }

struct DenseProduct::Primitive {
  Shape shape;
  Activation activation;

  // Columns that fill no vector.
  void add_rest(const float* x, const float* w, std::int64_t first, float* y) const {
    for (std::int64_t i = 0; i < shape.rows; ++i) {
      for (std::int64_t k = 0; k < shape.depth; ++k) {
        for (std::int64_t j = first; j < shape.columns; ++j) {
          y[i * shape.row_stride + j] += x[i * shape.depth + k] * w[k * shape.columns + j];
        }
      }
    }
  }

  void add_product(const float* x, const float* w, float* y) const {
    const TileKernels& kernels = tile_kernels();
    const std::int64_t whole = shape.columns / kernels.lanes * kernels.lanes;
    for (std::int64_t k = 0; k < shape.depth; k += kDepth) {
      kernels.multiply_add({x + k, shape.depth}, shape.rows, std::min(kDepth, shape.depth - k), w + k * shape.columns,
                           shape.columns, whole, y, shape.row_stride);
    }
    add_rest(x, w, whole, y);
  }
};

DenseProduct::DenseProduct(const Shape& shape, Activation activation) : primitive_(new Primitive{shape, activation}) {}

DenseProduct::~DenseProduct() = default;

void DenseProduct::operator()(const float* x, const float* w, const float* bias, float* y) const {
  const Shape& shape = primitive_->shape;
  for (std::int64_t i = 0; i < shape.rows; ++i) std::copy_n(bias, shape.columns, y + i * shape.row_stride);
  primitive_->add_product(x, w, y);
  for (std::int64_t i = 0; i < shape.rows; ++i) {
    activate(primitive_->activation, y + i * shape.row_stride, shape.columns);
  }
}

}  // namespace rattention
