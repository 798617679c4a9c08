// phi(x) = [f(x), f(-x)] of the linear family (Hedgehog, arXiv 2402.04347), or x itself, and the states it is summed
// into.
//
// In working memory rows are padded with zeros to whole vectors: x to padded(dim), either half of phi to as much,
// values and the rows of a state to padded(value_dim). A state is [features][columns], and has no rows for the padding
// of phi: an infinite value would make them NaN (0 * inf), and NaN whatever reads them.
#pragma once

#include <cstdint>

#include "kernels/tile_kernels.h"

namespace rattention {

enum class FeatureMap : std::uint8_t { softmax, relu, none };

inline std::int64_t features(FeatureMap map, std::int64_t dim) { return map == FeatureMap::none ? dim : 2 * dim; }

// phi[rows][2 padded] of x[rows][padded], softmax or relu.
void apply_feature_map(FeatureMap map, const float* x, std::int64_t rows, std::int64_t dim, float* phi);

// The same for n rows that lie in columns, n a multiple of the vectors' lanes: phi[features][stride] of x[dim][stride],
// which may be the last dim rows of phi (and is phi where that is x itself), and grad_x[padded][stride] from phi and
// its gradient, where grad_x may lie.
void apply_feature_map_to_columns(FeatureMap map, const float* x, std::int64_t stride, std::int64_t n, std::int64_t dim,
                                  float* phi);
void feature_map_gradient_of_columns(FeatureMap map, const float* phi, const float* grad_phi, std::int64_t stride,
                                     std::int64_t n, std::int64_t dim, float* grad_x);

// out[rows][columns] += phi . state, for phi[rows][2 padded].
void add_state_rows(const float* phi, std::int64_t rows, std::int64_t dim, const float* state, std::int64_t columns,
                    float* out);

// Between a caller's contiguous [features][value_dim] and the padded form.
void load_state(const float* state, std::int64_t features, std::int64_t value_dim, float* working);
void store_state(const float* working, std::int64_t features, std::int64_t value_dim, float* state);

}  // namespace rattention
