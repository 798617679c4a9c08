// The products of the backward pass in one format: gradients of weights, and the three that spread weights and
// gradients of scores to queries, keys and values. What lies between them is float32 in every format.
#pragma once

#include <cstdint>
#include <memory>

#include "core/scratch.h"
#include "kernels/tile_kernels.h"
#include "softmax/softmax_backward.h"
#include "softmax/task_plan.h"
#include "softmax/tile_operands.h"

namespace rattention {

// Three products and their accumulators share the second-level cache in the backward pass, so tiles are half as long as
// in the forward pass. In parts of 40 blocks: 4 % faster at 4096 tokens than tiles of 256 keys in parts of 20.
constexpr std::int64_t kBackwardKeys = 512;

// Rows of whole vectors, zeros behind: of the task's queries, of the tile's keys.
struct GradientRows {
  std::int64_t columns;
  std::int64_t value_columns;
  const float* queries;       // times scale for dot products
  const float* grad_outputs;  // as they are
  const float* finite;        // per query row, 0 where its query or its gradient is not
  float* grad_queries;
  const float* keys;  // 0 where not finite
  float* grad_keys;
  float* grad_values;
};

class GradientProducts {
 public:
  static std::unique_ptr<GradientProducts> make(const ScoreProblem& problem, const SoftmaxSaved& saved,
                                                const Task& task, const GradientRows& rows, Scratch& scratch);
  // Floats that takes from the scratch.
  static std::int64_t floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task);

  GradientProducts(const GradientProducts&) = delete;
  GradientProducts& operator=(const GradientProducts&) = delete;
  virtual ~GradientProducts() = default;

  // Those of the scores.
  virtual TileOperands& operands() = 0;
  // Once the rows of the block, or of the tile, are loaded.
  virtual void load_block(std::int64_t /*batch*/, const QueryBlock& /*block*/) {}
  virtual void load_tile(std::int64_t batch, std::int64_t kv_head, KeySpan keys) = 0;

  // Keys count from the first of the tile on from here. The keys that the products take for those of `keys`: weights
  // and gradients of all of them must be set.
  virtual KeySpan whole_steps(KeySpan keys) const { return keys; }
  // dL/dp = grad_output . value into grad_scores[rows][kTileStride].
  virtual void weight_gradients(const QueryBlock& block, KeySpan keys, float* grad_scores) = 0;
  // Adds what weights and gradients of scores, [rows][kTileStride] both, give to the finite rows of the three
  // gradients.
  virtual void add(const QueryBlock& block, KeySpan keys, const float* weights, const float* grad_scores) = 0;
  // After the last block of the tile: its gradients are in their rows.
  virtual void finish_tile(std::int64_t /*keys*/) {}

 protected:
  GradientProducts(const GradientRows& rows, Scratch& scratch);

  const GradientRows rows_;
  const TileKernels& kernels_;
  float* maxima_;  // of no use here, but score_panel() reads and writes them
};

}  // namespace rattention
