// The backward pass of the softmax family: weights are made again from scores and lse, tile by tile.
#pragma once

#include "core/tensor.h"
#include "softmax/score_problem.h"
#include "softmax/score_rule.h"

namespace rattention {

// What the forward pass left, and the gradient that came back. Shapes as in the forward pass; lse is natural.
struct SoftmaxSaved {
  TensorView value;
  TensorView output;
  TensorView grad_output;
  const TensorView* output_rest = nullptr;  // of the forward pass, where it gave one
  const double* lse = nullptr;              // contiguous [batch, heads, query_length]
  const float* grad_lse = nullptr;          // the same, or none
};

// float32, contiguous, and zero on entry; the optional ones may be nullptr.
struct SoftmaxGradients {
  float* query = nullptr;         // [batch, heads, query_length, head_dim]
  float* key = nullptr;           // [batch, kv_heads, key_length, head_dim]
  float* value = nullptr;         // [batch, kv_heads, key_length, value_dim]
  float* log_discount = nullptr;  // [batch, heads, query_length]: by row; summed by the caller in row order
  // As that of log_discount.
  float* sinks = nullptr;
  // [batch, heads, blocks of kBlockRows query rows, entries]: by block; summed by the caller
  float* relative_bias = nullptr;
  float* attn_mask = nullptr;  // [batch, heads, query_length, key_length]
  RuleGradients rule{};        // of the rule's parameters
};

void softmax_backward(const ScoreProblem& problem, const SoftmaxSaved& saved, const SoftmaxGradients& gradients);

}  // namespace rattention
