// The backward pass of residual linear attention.
#pragma once

#include "core/tensor.h"
#include "linear/scan_plan.h"

namespace rattention {

struct LinearSaved {
  TensorView grad_output;             // [batch, heads, length, value_dim]
  const float* grad_state = nullptr;  // of the final state, contiguous as that, or none
  const float* states = nullptr;      // as LinearForward saved them, or none: then they are summed again
};

// float32 and contiguous; gradients are added to what is there. `initial_state` is [batch, state_heads, 2 head_dim,
// value_dim] and may be nullptr.
struct LinearGradients {
  float* query = nullptr;
  float* key = nullptr;
  float* value = nullptr;
  float* initial_state = nullptr;
};

// `plan` is of the same problem, and the one that `saved` was written by.
void linear_backward(const LinearProblem& problem, const ScanPlan& plan, const LinearSaved& saved,
                     const LinearGradients& gradients);

}  // namespace rattention
