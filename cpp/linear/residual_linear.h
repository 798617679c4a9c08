// Residual linear attention (arXiv 2506.15545, section 3): row t = phi(q_t) S_{t - window - 1}, without a normaliser.
#pragma once

#include "core/tensor.h"
#include "linear/linear_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

struct LinearForward {
  const OutputView* output = nullptr;
  // The state that the last row reads, contiguous [batch, final_heads, features, value_dim], or none.
  float* final_state = nullptr;
  // What rounding has added to it, to go on from as initial_excess; or none.
  float* final_excess = nullptr;
  // The states that the plan keeps, for the backward pass, or none.
  float* states = nullptr;
};

// The final states of sequences without tokens: the initial ones.
void pass_states_on(const LinearProblem& problem, const LinearForward& want);

// `plan` is of the same problem.
void linear_forward(const LinearProblem& problem, const ScanPlan& plan, const LinearForward& want);

}  // namespace rattention
