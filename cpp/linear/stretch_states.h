// The states at the starts of stretches, summed before the rows are read: so threads may share a sequence.
#pragma once

#include <memory>

#include "linear/end_states.h"
#include "linear/linear_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

// The states that the plan keeps, in padded form and without a per-query-head initial state; and the final ones.
template <typename Update>
void stretch_states(const LinearProblem& problem, const ScanPlan& plan, float* states, const FinalStates& final = {});
// Memory for them.
std::unique_ptr<float[]> new_states(const LinearProblem& problem, const ScanPlan& plan);

}  // namespace rattention
