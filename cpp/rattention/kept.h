// What a forward pass of RAttention keeps for the backward pass, in one piece of memory.
#pragma once

#include <cstdint>

#include "rattention/rattention_problem.h"

namespace rattention {

struct RAttentionKept {
  RAttentionKept(const RAttentionProblem& problem, float* memory);
  static std::int64_t floats(const RAttentionProblem& problem);

  double* lse;  // of the sliding window, [batch, heads, length]
  // Rows of the branches before the norms, contiguous [batch, heads, length, value_dim].
  float* local;
  float* linear;
  float* states;  // as in LinearForward
};

}  // namespace rattention
