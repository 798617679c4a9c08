// Many tokens at once for RAttention's cache, by the kernels of whole sequences.
#pragma once

#include "core/tensor.h"
#include "rattention/rattention_cache.h"
#include "rattention/step_problem.h"

namespace rattention {

// rattention_step() for shapes that have been checked. The cache changes at the end, by what cannot fail; lengths are
// left to the caller.
void rattention_prefill(const StepProblem& problem, RAttentionCache& cache, const OutputView& output);

}  // namespace rattention
