#include "softmax/float_operands.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows.h"
#include "softmax/score_rule.h"

namespace rattention {

std::int64_t FloatOperands::floats(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows) {
  const auto up = Scratch::round_up;
  const std::int64_t dim = problem.query.dim();
  const std::int64_t panel = tile_kernels().panel;
  return up(query_rows * dim) + up((kTileKeys + panel) * dim) + up(panel * dim) + up(kTileKeys * columns(value)) +
         up(columns(value));
}

FloatOperands::FloatOperands(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows,
                             Scratch& scratch)
    : TileOperands(problem, value),
      dim_(problem.query.dim()),
      dot_(problem.rule->product() == PairProduct::dot),
      keys_in_rows_(dot_ && problem.few_rows() && dim_ % kernels_.lanes == 0),
      queries_(scratch.take(query_rows * dim_)),
      panels_(scratch.take((kTileKeys + kernels_.panel) * dim_)),
      staging_(scratch.take(kernels_.panel * dim_)),
      values_(scratch.take(kTileKeys * columns_)) {
  value_row_ = scratch.take(columns_);
}

void FloatOperands::load_queries(std::int64_t batch, const QueryBlock& block) {
  float* rows = queries_ + block.slot * dim_;
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t row = problem_.query_row(block.first + r);
    load_row(problem_.query, batch, block.head, row, rows + r * dim_, dim_);
    if (problem_.rotary != nullptr) problem_.rotary->apply(rows + r * dim_, problem_.masks.position(row));
  }
  if (dot_) kernels_.scale(rows, block.rows * dim_, problem_.scale);
}

void FloatOperands::pack_keys() {
  std::int64_t stride = dim_;
  const float* direct = problem_.rotary == nullptr ? float_rows(problem_.key, batch_, kv_head_, &stride) : nullptr;
  if (direct != nullptr) direct += keys_.first * stride;
  if (keys_in_rows_) return load_in_rows(direct, stride);
  float* panel = panels_;
  for (std::int64_t key = 0; key < keys_.size(); key += kernels_.panel, panel += kernels_.panel * dim_) {
    const std::int64_t n = std::min(kernels_.panel, keys_.size() - key);
    if (direct != nullptr) {
      kernels_.pack_panel(direct + key * stride, stride, n, dim_, panel);
      continue;
    }
    load_floats({keys_.first + key, keys_.first + key + n}, staging_);
    kernels_.pack_panel(staging_, dim_, n, dim_, panel);
  }
}

// Where they lie, if they lie there as float32; else in the room of the panels.
void FloatOperands::load_in_rows(const float* direct, std::int64_t stride) {
  if (direct == nullptr) load_floats(keys_, panels_);
  key_rows_ = direct != nullptr ? direct : panels_;
  key_stride_ = stride;
}

void FloatOperands::load_floats(KeySpan span, float* rows) const {
  for (std::int64_t key = span.first; key < span.last; ++key, rows += dim_) {
    load_row(problem_.key, batch_, kv_head_, key, rows, dim_);
    if (problem_.rotary != nullptr) problem_.rotary->apply(rows, key);
  }
}

void FloatOperands::score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, float* tile,
                                float* maxima) const {
  const float* queries = queries_of(block) + rows.first * dim_;
  float* scores = tile + rows.first * kTileStride + offset;
  maxima += rows.first * kernels_.lanes;
  if (keys_in_rows_) {
    const std::int64_t n = std::min(kernels_.panel, keys_.size() - offset);
    kernels_.score_keys(queries, rows.size(), dim_, key_rows_ + offset * key_stride_, key_stride_, n, scores,
                        kTileStride, maxima);
    return;
  }
  const auto score = dot_ ? kernels_.score_panel : kernels_.distance_panel;
  score(queries, rows.size(), dim_, panels_ + offset * dim_, scores, kTileStride, maxima);
}

// Scores have no unit here.
float FloatOperands::to_weights(float* row, std::int64_t offset, std::int64_t n, float /*unit*/, float shift) const {
  return kernels_.exp(row + offset, n, shift);
}

void FloatOperands::clear_weights(float* row, std::int64_t first, std::int64_t last) const {
  std::fill(row + first, row + last, 0.0F);
}

void FloatOperands::add_values(const float* weights, std::int64_t rows, KeySpan keys, float* output) const {
  const std::int64_t first = keys.first - keys_.first;
  kernels_.multiply_add({weights + first, kTileStride}, rows, keys.size(), tile_values_ + first * value_stride_,
                        value_stride_, columns_, output, columns_);
}

// Values of few rows are not aligned first.
const float* FloatOperands::values_in_place() {
  if (problem_.few_rows() && value_->dim() == columns_) return float_rows(*value_, batch_, kv_head_, &value_stride_);
  return vector_rows(*value_, batch_, kv_head_, &value_stride_);
}

void FloatOperands::pack_values() {
  const float* rows = values_in_place();
  if (rows != nullptr) {
    tile_values_ = rows + keys_.first * value_stride_;
  } else {
    tile_values_ = values_;
    value_stride_ = columns_;
    for (std::int64_t j = 0; j < keys_.size(); ++j) {
      load_row(*value_, batch_, kv_head_, keys_.first + j, values_ + j * columns_, columns_);
    }
  }
  if (!values_finite()) take_out_not_finite();
}

bool FloatOperands::values_finite() const {
  if (value_stride_ == columns_) return kernels_.all_finite(tile_values_, keys_.size() * columns_);
  for (std::int64_t j = 0; j < keys_.size(); ++j) {
    if (!kernels_.all_finite(tile_values_ + j * value_stride_, columns_)) return false;
  }
  return true;
}

// Goes on with a copy in which what is not finite is 0.
void FloatOperands::take_out_not_finite() {
  for (std::int64_t j = 0; j < keys_.size(); ++j) {
    const float* from = tile_values_ + j * value_stride_;
    float* row = values_ + j * columns_;
    const bool finite = kernels_.all_finite(from, columns_);
    std::transform(from, from + columns_, row, [](float x) { return std::isfinite(x) ? x : 0.0F; });
    if (!finite) not_finite_.push_back(keys_.first + j);
  }
  tile_values_ = values_;
  value_stride_ = columns_;
}

}  // namespace rattention
