// A dense layer: float32, rows of numbers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "core/scratch.h"
#include "nn/dense_product.h"

namespace rattention {

// y = activation(x * transpose(weight) + bias), one tile of y per task. Tiles depend on the shape alone, never on the
// number of threads, and neither do the results.
class Linear {
 public:
  // weight [out_features, in_features], bias [out_features] or null; both are copied.
  Linear(const float* weight, const float* bias, std::int64_t out_features, std::int64_t in_features,
         Activation activation);

  std::int64_t out_features() const { return out_features_; }
  std::int64_t in_features() const { return in_features_; }

  // x [rows, in_features], y [rows, out_features], contiguous. Any number of threads may call one object at once.
  void operator()(const float* x, std::int64_t rows, float* y) const;

 private:
  static constexpr std::int64_t kMaxRows = 128;

  // The products of one panel width by number of rows, made when first needed. Without a lock, so that a child made by
  // fork() can never wait for a thread that it does not have.
  class Products {
   public:
    Products() = default;
    ~Products();
    Products(const Products&) = delete;
    Products& operator=(const Products&) = delete;
    const DenseProduct& get(const DenseProduct::Shape& shape, Activation activation) const;

   private:
    mutable std::array<std::atomic<const DenseProduct*>, kMaxRows + 1> by_rows_{};
  };

  void copy_panel(const float* weight, std::int64_t first_column);
  void run_tile(const float* x, std::int64_t rows, std::int64_t first_column, float* y) const;
  std::int64_t panel_columns(std::int64_t first_column) const;

  std::int64_t out_features_;
  std::int64_t in_features_;
  std::int64_t panel_width_;
  Activation activation_;
  Scratch memory_;  // for its huge pages: a layer's weights are cold when its turn comes, and TLB misses cost 10 %
  float* weight_;   // panel after panel, each [in_features, its columns]
  std::vector<float> bias_;
  Products full_products_;
  Products last_products_;
};

}  // namespace rattention
