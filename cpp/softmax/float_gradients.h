// The products of the backward pass in float32.
#pragma once

#include "softmax/float_operands.h"
#include "softmax/gradient_products.h"

namespace rattention {

class FloatGradients final : public GradientProducts {
 public:
  FloatGradients(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task, const GradientRows& rows,
                 Scratch& scratch);
  static std::int64_t floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task);

  TileOperands& operands() override { return operands_; }
  void load_tile(std::int64_t batch, std::int64_t kv_head, KeySpan keys) override;
  void weight_gradients(const QueryBlock& block, KeySpan keys, float* grad_scores) override;
  void add(const QueryBlock& block, KeySpan keys, const float* weights, const float* grad_scores) override;

 private:
  bool all_finite(const QueryBlock& block) const;
  void take_out_not_finite_rows(const QueryBlock& block);

  const TensorView& value_;
  FloatOperands operands_;
  float* staging_;  // a panel of values in rows
  float* value_panels_;
  float* finite_queries_;  // of one block, with 0 in rows that are not finite
  float* finite_grads_;
};

}  // namespace rattention
