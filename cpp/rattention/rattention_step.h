// RAttention token by token: what comes in attends to the cache and joins it.
#pragma once

#include "core/tensor.h"
#include "rattention/rattention_cache.h"
#include "rattention/step_problem.h"

namespace rattention {

// output[b, h, i] is row lengths[b] + i of RAttention over all tokens so far, 0 for tokens that a sequence does not
// have. Either the whole call succeeds or the cache is as it was. std::invalid_argument for shapes that do not fit.
void rattention_step(const StepProblem& problem, RAttentionCache& cache, const OutputView& output);

}  // namespace rattention
