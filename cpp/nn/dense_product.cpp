#include "nn/dense_product.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/tile_kernels.h"

namespace rattention {
namespace {

// Of the weights at a time for all rows. A panel of 32 columns and so many rows is 32 KiB: it stays in the first or
// second-level cache, and its rows in few pages, while the rows of x pass.
constexpr std::int64_t kDepth = 256;
constexpr std::int64_t kPanelWidth = 32;

// Activations are computed for so many numbers at a time, beside an array for the exponentials.
constexpr std::int64_t kChunk = 256;
constexpr std::int64_t kPadding = 16;  // floats that the exponentials may touch beyond

// y * Phi(y); the error function by formula 7.1.26 of Abramowitz and Stegun, whose error is 1.5e-7.
void gelu(float* y, float* e, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) e[i] = -0.5F * y[i] * y[i];
  tile_kernels().exp(e, n, 0.0F);
  for (std::int64_t i = 0; i < n; ++i) {
    const float t = 1.0F / (1.0F + 0.3275911F * 0.70710678F * std::fabs(y[i]));
    const float series =
        ((((1.061405429F * t - 1.453152027F) * t + 1.421413741F) * t - 0.284496736F) * t + 0.254829592F) * t;
    const float tail = 0.5F * series * e[i];
    y[i] *= y[i] >= 0.0F ? 1.0F - tail : tail;
  }
}

// y * sigmoid(argument(y))
template <typename Argument>
void gated(float* y, float* e, std::int64_t n, Argument argument) {
  for (std::int64_t i = 0; i < n; ++i) e[i] = -std::fabs(argument(y[i]));
  tile_kernels().exp(e, n, 0.0F);
  for (std::int64_t i = 0; i < n; ++i) y[i] *= (argument(y[i]) >= 0.0F ? 1.0F : e[i]) / (1.0F + e[i]);
}

void activate(Activation activation, float* y, float* e, std::int64_t n) {
  switch (activation) {
    case Activation::none:
      return;
    case Activation::gelu:
      return gelu(y, e, n);
    case Activation::gelu_tanh:  // 1 + tanh(u) is twice the sigmoid of 2 u
      return gated(y, e, n, [](float x) { return 1.5957691F * (x + 0.044715F * x * x * x); });
    case Activation::relu:
      std::transform(y, y + n, y, [](float x) { return x < 0.0F ? 0.0F : x; });
      return;
    case Activation::silu:
      return gated(y, e, n, [](float x) { return x; });
  }
}

void activate_row(Activation activation, float* y, std::int64_t n) {
  std::array<float, kChunk + kPadding> exponentials{};
  for (std::int64_t i = 0; i < n; i += kChunk) {
    activate(activation, y + i, exponentials.data(), std::min(kChunk, n - i));
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

std::int64_t DenseProduct::panel_width(std::int64_t) { return kPanelWidth; }

void DenseProduct::operator()(const float* x, const float* w, const float* bias, float* y) const {
  const Shape& shape = primitive_->shape;
  for (std::int64_t i = 0; i < shape.rows; ++i) std::copy_n(bias, shape.columns, y + i * shape.row_stride);
  primitive_->add_product(x, w, y);
  for (std::int64_t i = 0; i < shape.rows; ++i) {
    activate_row(primitive_->activation, y + i * shape.row_stride, shape.columns);
  }
}

}  // namespace rattention
