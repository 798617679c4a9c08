// New tokens for a cache.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "rattention/norm_join.h"
#include "rattention/rattention_cache.h"

namespace rattention {

struct StepProblem {
  TensorView query;  // [batch, heads, tokens, head_dim], of the cache's dtype as all three
  TensorView key;
  TensorView value;
  const std::int64_t* counts = nullptr;  // how many of the tokens each sequence has, the first ones; none = all
  float scale = 1.0F;
  BranchNorms norms;

  std::int64_t count(std::int64_t b) const { return counts != nullptr ? counts[b] : query.length(); }
};

// std::invalid_argument where they do not fit.
void check_step(const StepProblem& problem, const RAttentionCache& cache);

}  // namespace rattention
