// What the linear family is asked to do: row t reads the state of the keys up to t - window - 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/keys.h"
#include "core/tensor.h"
#include "linear/feature_map.h"

namespace rattention {

struct LinearProblem {
  TensorView query;
  TensorView key;
  TensorView value;
  FeatureMap feature_map = FeatureMap::softmax;
  std::int64_t window = -1;              // from -1 (a row sees its own key) to the length
  const float* initial_state = nullptr;  // contiguous [batch, state_heads, 2 head_dim, value_dim], or none
  // What rounding has added to it (see RowKernels::add_compensated), in the same form; none = 0.
  const float* initial_excess = nullptr;
  std::int64_t state_heads = 0;  // as many as key/value heads, or as query heads
  std::optional<PaddingMask> padding;
  const std::int64_t* segments = nullptr;  // contiguous [batch, length]

  std::int64_t group() const { return key.heads() == 0 ? 1 : query.heads() / key.heads(); }
  std::int64_t delay() const { return window + 1; }
  bool state_per_query_head() const { return initial_state != nullptr && state_heads != key.heads(); }
  // Heads of the final state: one per key/value head unless the initial state has more.
  std::int64_t final_heads() const { return state_per_query_head() ? query.heads() : key.heads(); }
  std::int64_t user_state_size() const { return 2 * key.dim() * value.dim(); }
  // Sizes in working memory.
  std::int64_t features() const { return rattention::features(key.dim()); }
  // Rows of features that are made in place of the inputs they come from, see load_columns().
  std::int64_t feature_rows() const { return key.dim() + padded(key.dim()); }
  std::int64_t columns() const { return padded(value.dim()); }
  std::int64_t state_size() const { return features() * columns(); }
  bool hidden(std::int64_t b, std::int64_t j) const {
    return padding && padding->data[b * padding->strides[0] + j * padding->strides[1]] == std::byte{0};
  }
};

}  // namespace rattention
