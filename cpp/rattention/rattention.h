// RAttention (arXiv 2506.15545, section 3): RMSNorm(sliding window) + RMSNorm(residual linear attention), with rotary
// embedding in the sliding window alone.
#pragma once

#include "core/tensor.h"
#include "linear/residual_linear.h"
#include "linear/residual_linear_backward.h"
#include "rattention/kept.h"
#include "rattention/rattention_problem.h"

namespace rattention {

// Neither branch's output is written out, unless it is kept: a few hundred rows of the sliding window are joined with
// those of the state scan while they are in cache.
void rattention_forward(const RAttentionProblem& problem, const LinearForward& want,
                        const RAttentionKept* kept = nullptr);

struct RAttentionSaved {
  TensorView grad_output;                // [batch, heads, length, value_dim]
  const float* grad_state = nullptr;     // of the final state, or none
  const RAttentionKept* kept = nullptr;  // none: both branches are computed again
};

// `linear` as for linear_backward; norm weights contiguous [heads, value_dim]. Zero on entry.
struct RAttentionGradients {
  LinearGradients linear;
  float* local_norm_weight = nullptr;
  float* linear_norm_weight = nullptr;
};

void rattention_backward(const RAttentionProblem& problem, const RAttentionSaved& saved,
                         const RAttentionGradients& gradients);

}  // namespace rattention
