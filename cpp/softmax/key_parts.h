// Few rows that see many keys: their keys are cut into parts, which threads take as tasks of their own.
#pragma once

#include <cstdint>

#include "softmax/softmax_attention.h"

namespace rattention {

// Parts [first, last) of the keys that some row sees, from the problem alone, so that results do not depend on threads;
// one or none where no row's keys are cut.
KeySpan key_parts(const ScoreProblem& problem, const SoftmaxForward& want);

void forward_by_key_parts(const ScoreProblem& problem, const SoftmaxForward& want, KeySpan parts);

}  // namespace rattention
