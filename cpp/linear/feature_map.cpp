#include "linear/feature_map.h"

#include <algorithm>

#include "kernels/row_kernels.h"

namespace rattention {

void apply_feature_map(FeatureMap map, const float* x, std::int64_t rows, std::int64_t dim, float* phi) {
  const auto kernel = map == FeatureMap::softmax ? row_kernels().softmax_features : row_kernels().relu_features;
  kernel(x, rows, dim, phi);
}

void apply_feature_map_to_columns(FeatureMap map, const float* x, std::int64_t stride, std::int64_t n, std::int64_t dim,
                                  float* phi) {
  if (map == FeatureMap::none) return;
  const RowKernels& kernels = row_kernels();
  const auto kernel = map == FeatureMap::softmax ? kernels.softmax_feature_columns : kernels.relu_feature_columns;
  kernel(x, stride, n, dim, phi);
}

void feature_map_gradient_of_columns(FeatureMap map, const float* phi, const float* grad_phi, std::int64_t stride,
                                     std::int64_t n, std::int64_t dim, float* grad_x) {
  if (map == FeatureMap::none) return;
  const RowKernels& kernels = row_kernels();
  const auto kernel =
      map == FeatureMap::softmax ? kernels.softmax_feature_columns_gradient : kernels.relu_feature_columns_gradient;
  kernel(phi, grad_phi, stride, n, dim, grad_x);
}

void add_state_rows(const float* phi, std::int64_t rows, std::int64_t dim, const float* state, std::int64_t columns,
                    float* out) {
  for (std::int64_t half = 0; half < 2; ++half) {
    tile_kernels().multiply_add({phi + half * padded(dim), 2 * padded(dim)}, rows, dim, state + half * dim * columns,
                                columns, columns, out, columns);
  }
}

void load_state(const float* state, std::int64_t features, std::int64_t value_dim, float* working) {
  const std::int64_t columns = padded(value_dim);
  std::fill_n(working, features * columns, 0.0F);
  for (std::int64_t f = 0; f < features; ++f) {
    std::copy_n(state + f * value_dim, value_dim, working + f * columns);
  }
}

void store_state(const float* working, std::int64_t features, std::int64_t value_dim, float* state) {
  const std::int64_t columns = padded(value_dim);
  for (std::int64_t f = 0; f < features; ++f) {
    std::copy_n(working + f * columns, value_dim, state + f * value_dim);
  }
}

}  // namespace rattention
