#include "softmax/bf16_gradients.h"

#include <algorithm>

#include "kernels/rows.h"
#include "softmax/bf16_pairs.h"

namespace rattention {
namespace {

constexpr std::int64_t kStep = Bf16Kernels::kDepth;
constexpr std::int64_t kPanel = Bf16Kernels::kPanel;
// Rows of a block, filled up to whole steps: one panel, as which they are transposed.
constexpr std::int64_t kBlockDepth = kPanel;
// From row to row of sums, as kTileStride.
constexpr std::int64_t kSumStride = kBackwardKeys + 16;
static_assert(kBlockRows <= kBlockDepth && kBlockDepth % kStep == 0, "a block is transposed as one panel");

void round_to_halves(const float* row, std::int64_t n, float* pairs) {
  store_row(row, n, reinterpret_cast<std::byte*>(pairs), DType::bf16);
}

// Rows or panels on their way to another layout.
std::int64_t staged(std::int64_t columns, std::int64_t value_columns) {
  return std::max(kBlockRows * std::max(columns, value_columns), kPanel * kPanel) +
         kPanel * std::max({columns, value_columns, kPanel});
}

}  // namespace

bool Bf16Gradients::possible(const ScoreProblem& problem, const SoftmaxSaved& saved) {
  return saved.grad_output.dtype == DType::bf16 && Bf16Operands::possible(problem, &saved.value);
}

std::int64_t Bf16Gradients::floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task) {
  const auto up = Scratch::round_up;
  const std::int64_t columns = padded(problem.query.dim());
  const std::int64_t value_columns = padded(saved.value.dim());
  const std::int64_t value_dim = pairs_of_row(saved.value.dim());
  return Bf16Operands::floats(problem, nullptr, task.rows) +
         up(static_cast<std::int64_t>(task.blocks.size()) * (columns + value_columns) * kBlockDepth / 2) +
         up(rows_with_room(task.rows) * value_dim) + up((kBackwardKeys + kPanel) * value_dim) +
         up(kBackwardKeys / 2 * columns) + up(kBlockDepth / 2 * kBackwardKeys) +
         up(rows_with_room(kBlockRows) * kSumStride / 2) + up((columns + value_columns) * kSumStride) +
         up(staged(columns, value_columns));
}

Bf16Gradients::Bf16Gradients(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task,
                             const GradientRows& rows, Scratch& scratch)
    : GradientProducts(rows, scratch),
      problem_(problem),
      saved_(saved),
      products_(*bf16_kernels()),
      operands_(problem, nullptr, task.rows, scratch),
      value_dim_(pairs_of_row(saved.value.dim())),
      queries_(scratch.take(static_cast<std::int64_t>(task.blocks.size()) * (rows.columns + rows.value_columns) *
                            kBlockDepth / 2)),
      grad_outputs_(queries_ + static_cast<std::int64_t>(task.blocks.size()) * rows.columns * kBlockDepth / 2),
      grad_rows_(scratch.take(rows_with_room(task.rows) * value_dim_)),
      value_panels_(scratch.take((kBackwardKeys + kPanel) * value_dim_)),
      key_pairs_(scratch.take(kBackwardKeys / 2 * rows.columns)),
      tile_pairs_(scratch.take(kBlockDepth / 2 * kBackwardKeys)),
      tile_rows_(scratch.take(rows_with_room(kBlockRows) * kSumStride / 2)),
      key_sums_(scratch.take((rows.columns + rows.value_columns) * kSumStride)),
      value_sums_(key_sums_ + rows.columns * kSumStride),
      staging_(scratch.take(staged(rows.columns, rows.value_columns))) {}

void Bf16Gradients::load_block(std::int64_t batch, const QueryBlock& block) {
  const std::int64_t depth = kBlockDepth / 2;
  transpose(problem_.query, batch, block, rows_.columns, queries_ + block.index * rows_.columns * depth);
  transpose(saved_.grad_output, batch, block, rows_.value_columns,
            grad_outputs_ + block.index * rows_.value_columns * depth);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    copy_halves(saved_.grad_output, batch, block.head, block.first + r,
                halves(grad_rows_ + (block.slot + r) * value_dim_), 2 * value_dim_);
  }
}

void Bf16Gradients::transpose(const TensorView& view, std::int64_t batch, const QueryBlock& block, std::int64_t columns,
                              float* transposed) {
  float* panel = staging_ + kBlockRows * columns;
  for (std::int64_t r = 0; r < block.rows; ++r) {
    float* row = staging_ + r * columns;
    if (rows_.finite[block.slot + r] != 0) {
      load_row(view, batch, block.head, block.first + r, row, columns);
    } else {
      std::fill_n(row, columns, 0.0F);
    }
  }
  kernels_.pack_panel(staging_, columns, block.rows, columns, panel);
  round_to_halves(panel, columns * kBlockDepth, transposed);
}

void Bf16Gradients::load_tile(std::int64_t batch, std::int64_t kv_head, KeySpan keys) {
  for (std::int64_t j = 0; j < keys.size(); j += kPanel) {
    const std::int64_t n = std::min(kPanel, keys.size() - j);
    for (std::int64_t i = 0; i < n; ++i) {
      copy_halves(saved_.value, batch, kv_head, keys.first + j + i, halves(staging_ + i * value_dim_), 2 * value_dim_);
    }
    kernels_.pack_panel(staging_, value_dim_, n, value_dim_, value_panels_ + j * value_dim_);
  }
  const std::int64_t columns = rows_.columns;
  std::fill_n(staging_, columns, 0.0F);
  for (std::int64_t j = 0; j < keys.size(); j += 2) {
    const float* next = j + 1 < keys.size() ? rows_.keys + (j + 1) * columns : staging_;
    products_.round_pairs(rows_.keys + j * columns, next, columns, halves(key_pairs_ + j / 2 * columns));
  }
  const std::int64_t pairs = ceil_div(keys.size(), 2);
  const std::int64_t steps = ceil_div(keys.size(), kStep) * (kStep / 2);
  std::fill(key_pairs_ + pairs * columns, key_pairs_ + steps * columns, 0.0F);
  std::fill_n(key_sums_, (columns + rows_.value_columns) * kSumStride, 0.0F);
}

KeySpan Bf16Gradients::whole_steps(KeySpan keys) const {
  return {keys.first / kStep * kStep, ceil_div(keys.last, kStep) * kStep};
}

void Bf16Gradients::weight_gradients(const QueryBlock& block, KeySpan keys, float* grad_scores) {
  for (std::int64_t j = keys.first / kPanel * kPanel; j < keys.last; j += kPanel) {
    products_.score_panel(halves(grad_rows_ + block.slot * value_dim_), block.rows, 2 * value_dim_,
                          halves(value_panels_ + j * value_dim_), grad_scores + j, kTileStride, maxima_);
  }
}

void Bf16Gradients::add(const QueryBlock& block, KeySpan keys, const float* weights, const float* grad_scores) {
  const std::int64_t depth = kBlockDepth / 2;
  add_rows(block, keys, weights, grad_outputs_ + block.index * rows_.value_columns * depth, rows_.value_columns,
           value_sums_);
  add_rows(block, keys, grad_scores, queries_ + block.index * rows_.columns * depth, rows_.columns, key_sums_);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    round_to_halves(grad_scores + r * kTileStride + keys.first, keys.size(), tile_rows_ + r * kSumStride / 2);
  }
  products_.multiply_add(halves(tile_rows_), kSumStride, block.rows, keys.size(),
                         halves(key_pairs_ + keys.first / 2 * rows_.columns), rows_.columns,
                         rows_.grad_queries + block.slot * rows_.columns, rows_.columns);
}

void Bf16Gradients::add_rows(const QueryBlock& block, KeySpan keys, const float* tile, const float* transposed,
                             std::int64_t columns, float* sums) {
  const std::int64_t n = keys.size();
  std::int64_t r = 0;
  for (; r + 1 < block.rows; r += 2) {
    const float* row = tile + r * kTileStride + keys.first;
    products_.round_pairs(row, row + kTileStride, n, halves(tile_pairs_ + r / 2 * n));
  }
  if (r < block.rows) {
    std::fill_n(staging_, n, 0.0F);
    products_.round_pairs(tile + r * kTileStride + keys.first, staging_, n, halves(tile_pairs_ + r / 2 * n));
    r += 2;
  }
  const std::int64_t depth = ceil_div(block.rows, kStep) * kStep;
  std::fill(tile_pairs_ + r / 2 * n, tile_pairs_ + depth / 2 * n, 0.0F);
  products_.multiply_add(halves(transposed), kBlockDepth, columns, depth, halves(tile_pairs_), n, sums + keys.first,
                         kSumStride);
}

void Bf16Gradients::finish_tile(std::int64_t keys) {
  finish(keys, rows_.columns, problem_.scale, key_sums_, rows_.grad_keys);
  finish(keys, rows_.value_columns, 1, value_sums_, rows_.grad_values);
}

// Panel by panel, as which rows of sums become columns.
void Bf16Gradients::finish(std::int64_t keys, std::int64_t columns, float factor, const float* sums, float* gradients) {
  for (std::int64_t c = 0; c < columns; c += kPanel) {
    const std::int64_t width = std::min(kPanel, columns - c);
    for (std::int64_t j = 0; j < keys; j += kPanel) {
      const std::int64_t n = std::min(kPanel, keys - j);
      kernels_.pack_panel(sums + c * kSumStride + j, kSumStride, width, n, staging_);
      kernels_.scale(staging_, n * kPanel, factor);
      for (std::int64_t i = 0; i < n; ++i) {
        kernels_.add(gradients + (j + i) * columns + c, staging_ + i * kPanel, width);
      }
    }
  }
}

}  // namespace rattention
