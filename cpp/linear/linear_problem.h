// What the linear family is asked to do: row t reads the state of the keys up to t - window - 1, which may decay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/keys.h"
#include "core/tensor.h"
#include "linear/feature_map.h"

namespace rattention {

// A whole vector of any instruction set, so that states stay aligned.
constexpr std::int64_t kBesideState = 16;

struct LinearProblem {
  TensorView query;
  TensorView key;
  TensorView value;
  FeatureMap feature_map = FeatureMap::softmax;
  std::int64_t window = -1;  // from -1 (a row sees its own key) to the length
  // ln a_t <= 0 of S_t = a_t S_{t-1} + phi(k_t)^T v_t, contiguous [batch, kv_heads, length]; none: nothing decays.
  const float* log_gates = nullptr;
  float scale = 1.0F;                    // of the output, where there are gates
  const float* initial_state = nullptr;  // contiguous [batch, state_heads, features, value_dim], or none
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
  std::int64_t user_state_size() const { return features() * value.dim(); }
  // Sizes in working memory.
  std::int64_t features() const { return rattention::features(feature_map, key.dim()); }
  // Rows of features that are made in place of the inputs they come from, which lie behind the first input_row().
  std::int64_t input_row() const { return features() - key.dim(); }
  std::int64_t feature_rows() const { return input_row() + padded(key.dim()); }
  std::int64_t columns() const { return padded(value.dim()); }
  std::int64_t state_floats() const { return features() * columns(); }
  // With what a rule that decays keeps beside a state.
  std::int64_t state_size() const { return state_floats() + (log_gates != nullptr ? kBesideState : 0); }
  bool hidden(std::int64_t b, std::int64_t j) const { return padding && padding->hides(b, j); }
};

}  // namespace rattention
