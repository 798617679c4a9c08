// RAttention token by token: what comes in attends to the cache and joins it.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "rattention/rattention_cache.h"

namespace rattention {

struct StepProblem {
  TensorView query;  // [batch, heads, tokens, head_dim], of the cache's dtype as all three
  TensorView key;
  TensorView value;
  const std::int64_t* counts = nullptr;  // how many of the tokens each sequence has, the first ones; none = all
  float scale = 1.0F;
  const float* local_norm_weight = nullptr;   // contiguous [heads, value_dim], none = 1
  const float* linear_norm_weight = nullptr;  // contiguous [heads, value_dim], none = 1
  float eps = 0.0F;

  std::int64_t count(std::int64_t b) const { return counts != nullptr ? counts[b] : query.length(); }
};

// output[b, h, i] is row lengths[b] + i of RAttention over all tokens so far, 0 for tokens that a sequence does not
// have. Either the whole call succeeds or the cache is as it was. std::invalid_argument for shapes that do not fit.
void rattention_step(const StepProblem& problem, RAttentionCache& cache, const OutputView& output);

}  // namespace rattention
