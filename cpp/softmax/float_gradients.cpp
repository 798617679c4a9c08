#include "softmax/float_gradients.h"

#include <algorithm>

#include "kernels/rows.h"

namespace rattention {

std::int64_t FloatGradients::floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task) {
  const auto up = Scratch::round_up;
  const std::int64_t columns = padded(problem.query.dim());
  const std::int64_t value_columns = padded(saved.value.dim());
  return FloatOperands::floats(problem, nullptr, task.rows) + up(tile_kernels().panel * value_columns) +
         up((kBackwardKeys + tile_kernels().panel) * value_columns) + up(kBlockRows * columns) +
         up(kBlockRows * value_columns);
}

FloatGradients::FloatGradients(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task,
                               const GradientRows& rows, Scratch& scratch)
    : GradientProducts(rows, scratch),
      value_(saved.value),
      operands_(problem, nullptr, task.rows, scratch),
      staging_(scratch.take(kernels_.panel * rows.value_columns)),
      value_panels_(scratch.take((kBackwardKeys + kernels_.panel) * rows.value_columns)),
      finite_queries_(scratch.take(kBlockRows * rows.columns)),
      finite_grads_(scratch.take(kBlockRows * rows.value_columns)) {}

void FloatGradients::load_tile(std::int64_t batch, std::int64_t kv_head, KeySpan keys) {
  const std::int64_t columns = rows_.value_columns;
  for (std::int64_t j = 0; j < keys.size(); j += kernels_.panel) {
    const std::int64_t n = std::min(kernels_.panel, keys.size() - j);
    for (std::int64_t i = 0; i < n; ++i) {
      load_row(value_, batch, kv_head, keys.first + j + i, staging_ + i * columns, columns);
    }
    kernels_.pack_panel(staging_, columns, n, columns, value_panels_ + j * columns);
  }
}

void FloatGradients::weight_gradients(const QueryBlock& block, KeySpan keys, float* grad_scores) {
  const std::int64_t columns = rows_.value_columns;
  for (std::int64_t j = keys.first / kernels_.panel * kernels_.panel; j < keys.last; j += kernels_.panel) {
    kernels_.score_panel(rows_.grad_outputs + block.slot * columns, block.rows, columns, value_panels_ + j * columns,
                         grad_scores + j, kTileStride, maxima_);
  }
}

void FloatGradients::add(const QueryBlock& block, KeySpan keys, const float* weights, const float* grad_scores) {
  const std::int64_t columns = rows_.columns;
  const std::int64_t value_columns = rows_.value_columns;
  const float* queries = rows_.queries + block.slot * columns;
  const float* grads = rows_.grad_outputs + block.slot * value_columns;
  if (!all_finite(block)) {
    take_out_not_finite_rows(block);
    queries = finite_queries_;
    grads = finite_grads_;
  }
  kernels_.multiply_add({weights + keys.first, kTileStride, true}, keys.size(), block.rows, grads, value_columns,
                        value_columns, rows_.grad_values + keys.first * value_columns, value_columns);
  kernels_.multiply_add({grad_scores + keys.first, kTileStride}, block.rows, keys.size(),
                        rows_.keys + keys.first * columns, columns, columns, rows_.grad_queries + block.slot * columns,
                        columns);
  kernels_.multiply_add({grad_scores + keys.first, kTileStride, true}, keys.size(), block.rows, queries, columns,
                        columns, rows_.grad_keys + keys.first * columns, columns);
}

bool FloatGradients::all_finite(const QueryBlock& block) const {
  return std::all_of(rows_.finite + block.slot, rows_.finite + block.slot + block.rows, [](float x) { return x != 0; });
}

// Times a weight of 0 they would reach keys that they do not see.
void FloatGradients::take_out_not_finite_rows(const QueryBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t slot = block.slot + r;
    float* query = finite_queries_ + r * rows_.columns;
    float* grad = finite_grads_ + r * rows_.value_columns;
    std::copy_n(rows_.queries + slot * rows_.columns, rows_.columns, query);
    std::copy_n(rows_.grad_outputs + slot * rows_.value_columns, rows_.value_columns, grad);
    if (rows_.finite[slot] != 0) continue;
    std::fill_n(query, rows_.columns, 0.0F);
    std::fill_n(grad, rows_.value_columns, 0.0F);
  }
}

}  // namespace rattention
