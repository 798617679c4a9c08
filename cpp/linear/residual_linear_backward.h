// The backward pass of residual linear attention.
#pragma once

#include "linear/linear_gradients.h"
#include "linear/linear_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

// `plan` is of the same problem, and the one that `saved` was written by.
void linear_backward(const LinearProblem& problem, const ScanPlan& plan, const LinearSaved& saved,
                     const LinearGradients& gradients);

}  // namespace rattention
