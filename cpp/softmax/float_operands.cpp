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
    load_query(problem_, batch, block.head, problem_.query_row(block.first + r), rows + r * dim_, dim_);
  }
}

void FloatOperands::pack_keys() {
  if (keys_in_rows_) return find_key_rows();
  std::int64_t stride = dim_;
  const float* direct = direct_keys(&stride);
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

// The loaded keys where they lie as float32, or nullptr.
const float* FloatOperands::direct_keys(std::int64_t* stride) const {
  const float* rows = problem_.rotary == nullptr ? float_rows(problem_.key, batch_, kv_head_, stride) : nullptr;
  return rows == nullptr ? nullptr : rows + keys_.first * *stride;
}

// Where they lie, if they lie there as float32 or bfloat16; else in the room of the panels.
void FloatOperands::find_key_rows() {
  if (problem_.rotary == nullptr) bf16_key_rows_ = bf16_rows(problem_.key, batch_, kv_head_, &key_stride_);
  if (bf16_key_rows_ != nullptr) {
    bf16_key_rows_ += keys_.first * key_stride_;
    return;
  }
  key_stride_ = dim_;
  key_rows_ = direct_keys(&key_stride_);
  if (key_rows_ != nullptr) return;
  load_floats(keys_, panels_);
  key_rows_ = panels_;
}

void FloatOperands::load_floats(KeySpan span, float* rows) const {
  for (std::int64_t key = span.first; key < span.last; ++key, rows += dim_) {
    load_row(problem_.key, batch_, kv_head_, key, rows, dim_);
    if (problem_.rotary != nullptr) problem_.rotary->apply(rows, key);
  }
}

void FloatOperands::score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, float* tile,
                                float* maxima) const {
  const float* queries = queries_ + (block.slot + rows.first) * dim_;
  float* scores = tile + rows.first * kTileStride + offset;
  maxima += rows.first * kernels_.lanes;
  if (keys_in_rows_) {
    const std::int64_t n = std::min(kernels_.panel, keys_.size() - offset);
    const auto score_in_rows = [&](auto score, const auto* keys) {
      score(queries, rows.size(), dim_, keys + offset * key_stride_, key_stride_, n, scores, kTileStride, maxima);
    };
    if (bf16_key_rows_ != nullptr) return score_in_rows(kernels_.score_bf16_keys, bf16_key_rows_);
    return score_in_rows(kernels_.score_keys, key_rows_);
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
  const auto add = [&](auto multiply_add, const auto* values) {
    multiply_add({weights + first, kTileStride}, rows, keys.size(), values + first * value_stride_, value_stride_,
                 columns_, output, columns_);
  };
  if (bf16_tile_values_ != nullptr) return add(kernels_.multiply_add_bf16, bf16_tile_values_);
  add(kernels_.multiply_add, tile_values_);
}

// Values of few rows are not aligned first.
const float* FloatOperands::values_in_place() {
  if (problem_.few_rows() && value_->dim() == columns_) return float_rows(*value_, batch_, kv_head_, &value_stride_);
  return vector_rows(*value_, batch_, kv_head_, &value_stride_);
}

// Finite ones of bfloat16 for few rows, where they lie.
bool FloatOperands::find_bf16_values() {
  bf16_tile_values_ = nullptr;
  if (!problem_.few_rows() || value_->dim() != columns_) return false;
  const std::uint16_t* rows = bf16_rows(*value_, batch_, kv_head_, &value_stride_);
  if (rows == nullptr) return false;
  rows += keys_.first * value_stride_;
  if (!finite_values(kernels_.all_finite_bf16, rows)) return false;
  bf16_tile_values_ = rows;
  return true;
}

void FloatOperands::pack_values() {
  if (find_bf16_values()) return;
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
  if (!finite_values(kernels_.all_finite, tile_values_)) take_out_not_finite();
}

template <typename Element>
bool FloatOperands::finite_values(bool (*all_finite)(const Element*, std::int64_t), const Element* rows) const {
  if (value_stride_ == columns_) return all_finite(rows, keys_.size() * columns_);
  for (std::int64_t j = 0; j < keys_.size(); ++j) {
    if (!all_finite(rows + j * value_stride_, columns_)) return false;
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
