// The gated delta rule, with or without its correction, and its gradients.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "linear/delta_problem.h"

namespace rattention {

struct DeltaForward {
  const OutputView* output = nullptr;
  // The state behind the last token, contiguous [batch, state_heads, head_dim, value_dim], or none; may be the initial
  // state where every head has its own.
  float* final_state = nullptr;
  // States for the backward pass, delta_saved_floats() of them, or none.
  float* states = nullptr;
};

struct DeltaSaved {
  TensorView grad_output;             // [batch, heads, length, value_dim]
  const float* grad_state = nullptr;  // of the final state, or none
  const float* states = nullptr;      // as DeltaForward saved them, or none: then they are computed again
};

// float32, contiguous and zero on entry; `initial_state` may be none.
struct DeltaGradients {
  float* query = nullptr;
  float* key = nullptr;
  float* value = nullptr;
  float* log_gate = nullptr;
  float* beta = nullptr;  // of the problem's, where it has any
  float* initial_state = nullptr;
};

void delta_forward(const DeltaProblem& problem, const DeltaForward& want);
void delta_backward(const DeltaProblem& problem, const DeltaSaved& saved, const DeltaGradients& gradients);

// Floats of all states that a forward pass saves, from the shapes alone.
std::int64_t delta_saved_floats(const DeltaProblem& problem);

}  // namespace rattention
