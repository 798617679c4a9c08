// The products of the backward pass on bfloat16 operands, summed in float32. Weights and gradients of scores are
// rounded to bfloat16.
#pragma once

#include "softmax/bf16_operands.h"
#include "softmax/gradient_products.h"

namespace rattention {

class Bf16Gradients final : public GradientProducts {
 public:
  // Whether Bf16Operands are, and the gradient of the output is bfloat16.
  static bool possible(const ScoreProblem& problem, const SoftmaxSaved& saved);

  Bf16Gradients(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task, const GradientRows& rows,
                Scratch& scratch);
  static std::int64_t floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task);

  TileOperands& operands() override { return operands_; }
  void load_block(std::int64_t batch, const QueryBlock& block) override;
  void load_tile(std::int64_t batch, std::int64_t kv_head, KeySpan keys) override;
  KeySpan whole_steps(KeySpan keys) const override;
  void weight_gradients(const QueryBlock& block, KeySpan keys, float* grad_scores) override;
  void add(const QueryBlock& block, KeySpan keys, const float* weights, const float* grad_scores) override;
  void finish_tile(std::int64_t keys) override;

 private:
  // The finite rows of a block of `view`, transposed.
  void transpose(const TensorView& view, std::int64_t batch, const QueryBlock& block, std::int64_t columns,
                 float* transposed);
  // sums[columns][keys] += transposed rows of the block . tile
  void add_rows(const QueryBlock& block, KeySpan keys, const float* tile, const float* transposed, std::int64_t columns,
                float* sums);
  // gradients[keys][columns] += factor * sums, which are transposed.
  void finish(std::int64_t keys, std::int64_t columns, float factor, const float* sums, float* gradients);

  const ScoreProblem& problem_;
  const SoftmaxSaved& saved_;
  const Bf16Kernels& products_;
  Bf16Operands operands_;
  const std::int64_t value_dim_;  // of a row as it lies here, in floats: pairs
  // The block's rows along the summed dimension, transposed: [blocks][columns][kBlockDepth / 2 pairs].
  float* queries_;
  float* grad_outputs_;
  float* grad_rows_;     // gradients of outputs in rows, as left operands of dL/dp
  float* value_panels_;  // [value_dim][panel] pairs
  float* key_pairs_;     // [keys / 2][columns] pairs
  float* tile_pairs_;    // [kBlockDepth / 2][keys] pairs of rows, of weights or gradients of scores
  float* tile_rows_;     // gradients of scores of the block, [kBlockRows][keys] bfloat16
  float* key_sums_;      // [columns][keys], without scale
  float* value_sums_;
  float* staging_;
};

}  // namespace rattention
