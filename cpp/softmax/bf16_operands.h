// Operands in bfloat16, multiplied as they lie and summed in float32.
#pragma once

#include "core/threads.h"
#include "kernels/bf16_kernels.h"
#include "softmax/tile_operands.h"

namespace rattention {

class Bf16Operands final : public TileOperands {
 public:
  // Whether the processor has the products, the problem is made of them, all of it is bfloat16, and rows are so many
  // that packing keys pays.
  static bool possible(const ScoreProblem& problem, const TensorView* value);

  // Only one at a time on a thread, and no other library may multiply there while it lives: the thread does not hear
  // interrupts meanwhile, because a hook may use one.
  Bf16Operands(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows, Scratch& scratch);
  // Floats the constructor takes from the scratch.
  static std::int64_t floats(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows);

  // Sums over pairs of keys round by pairs, and those must not depend on the tasks: from a whole panel of the grid on.
  KeySpan whole_panels(KeySpan span) const override;
  void load_queries(std::int64_t batch, const QueryBlock& block) override;
  float unit() const override;  // the scale: it would round the queries
  void score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, float* tile,
                   float* maxima) const override;
  float to_weights(float* row, std::int64_t offset, std::int64_t n, float unit, float shift) const override;
  void clear_weights(float* row, std::int64_t first, std::int64_t last) const override;
  float weight_at(const float* row, std::int64_t offset) const override;
  std::int64_t rows_at_a_time() const override { return products_.rows_at_a_time; }
  KeySpan whole_steps(KeySpan keys) const override;
  void add_values(const float* weights, std::int64_t rows, KeySpan keys, float* output) const override;

 private:
  void pack_keys() override;
  void pack_values() override;

  const Bf16Kernels& products_;
  const Bf16Session session_;
  const Interrupts no_hook_{nullptr};
  const std::int64_t dim_;  // of a row as it lies here, in floats: pairs
  float* queries_;
  float* panels_;
  float* staging_;
  float* values_;  // pairs
};

}  // namespace rattention
