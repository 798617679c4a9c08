// What the backward pass of the linear family takes and gives.
#pragma once

#include "core/tensor.h"

namespace rattention {

struct LinearSaved {
  TensorView grad_output;             // [batch, heads, length, value_dim]
  const float* grad_state = nullptr;  // of the final state, contiguous as that, or none
  const float* states = nullptr;      // as LinearForward saved them, or none: then they are summed again
};

// float32, contiguous and zero on entry, unless `add` is set: then gradients are added to what is there.
// `initial_state` is [batch, state_heads, features, value_dim] and may be nullptr; `log_gates` as those of the problem,
// where it has any, and never added to.
struct LinearGradients {
  float* query = nullptr;
  float* key = nullptr;
  float* value = nullptr;
  float* initial_state = nullptr;
  float* log_gates = nullptr;
  bool add = false;
};

}  // namespace rattention
