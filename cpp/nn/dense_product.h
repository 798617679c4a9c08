// The dense product of a layer: by oneDNN where the core is built with it (onednn.cpp), else by the kernels of the
// score loop (dense_product.cpp).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace rattention {

// Of the library that computes dense products; nothing where the core does.
std::optional<std::string> onednn_version();

enum class Activation : std::uint8_t { none, gelu, gelu_tanh, relu, silu };

// y[rows, columns] = activation(x[rows, depth] * w[depth, columns] + bias), float32. x and w are contiguous; the rows
// of y lie row_stride elements apart. Fixed at construction, for one thread: tasks on several threads may call one
// object at once.
class DenseProduct {
 public:
  struct Shape {
    std::int64_t rows;
    std::int64_t depth;
    std::int64_t columns;
    std::int64_t row_stride;
  };
  DenseProduct(const Shape& shape, Activation activation);
  ~DenseProduct();
  DenseProduct(const DenseProduct&) = delete;
  DenseProduct& operator=(const DenseProduct&) = delete;

  void operator()(const float* x, const float* w, const float* bias, float* y) const;

  // The columns at which products of up to 128 rows are fastest, for a layer of so many columns in all.
  static std::int64_t panel_width(std::int64_t columns);

 private:
  struct Primitive;
  std::unique_ptr<const Primitive> primitive_;
};

}  // namespace rattention
