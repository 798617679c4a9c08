// What RAttention is asked to do.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor.h"
#include "kernels/rotary.h"
#include "linear/scan_plan.h"
#include "rattention/norm_join.h"

namespace rattention {

// Rows that go on where others ended: the last row is that of the last key.
struct Continuation {
  TensorView key;  // [batch, kv_heads, keys before the first row + rows, dim]
  TensorView value;
  std::int64_t window;
};

struct RAttentionProblem {
  LinearProblem linear;
  // What the sliding window sees where that is not the keys, values and window of `linear`.
  std::optional<Continuation> local;
  float scale = 1.0F;
  RotaryRates rope;  // of the sliding window; empty = none
  BranchNorms norms;

  const TensorView& local_key() const { return local ? local->key : linear.key; }
  const TensorView& local_value() const { return local ? local->value : linear.value; }
  std::int64_t window() const { return local ? local->window : linear.window; }
};

}  // namespace rattention
