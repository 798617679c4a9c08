#include "softmax/score_operands.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows.h"

namespace rattention {
namespace {

// Two bfloat16 take the room of a float.
std::int64_t floats_per_row(const ScoreProblem& problem, Format format) {
  const std::int64_t dim = problem.query.dim();
  if (format == Format::f32) return dim;
  return (dim + Bf16Kernels::kDepth - 1) / Bf16Kernels::kDepth * Bf16Kernels::kDepth / 2;
}

// bfloat16 is multiplied in whole tiles of rows.
std::int64_t rows_with_room(std::int64_t rows, Format format) {
  return format == Format::f32 ? rows : rows + Bf16Kernels::kRows;
}

Bf16* halves(float* pairs) { return reinterpret_cast<Bf16*>(pairs); }

}  // namespace

std::int64_t ScoreOperands::floats(const ScoreProblem& problem, std::int64_t query_rows, Format format) {
  const std::int64_t dim = floats_per_row(problem, format);
  const std::int64_t panel = tile_kernels().panel;
  return Scratch::round_up(rows_with_room(query_rows, format) * dim) + Scratch::round_up((kTileKeys + panel) * dim) +
         Scratch::round_up(panel * dim);
}

ScoreOperands::ScoreOperands(const ScoreProblem& problem, Scratch& scratch, std::int64_t query_rows, Format format)
    : problem_(problem),
      kernels_(tile_kernels()),
      format_(format),
      dim_(floats_per_row(problem, format)),
      few_rows_(format == Format::f32 && !problem.gravity && problem.few_rows() && dim_ % kernels_.lanes == 0),
      queries_(scratch.take(rows_with_room(query_rows, format) * dim_)),
      panels_(scratch.take((kTileKeys + kernels_.panel) * dim_)),
      staging_(scratch.take(kernels_.panel * dim_)) {}

KeySpan ScoreOperands::whole_panels(KeySpan span) const {
  if (format_ == Format::f32) return span;
  return {span.first / kernels_.panel * kernels_.panel, span.last};
}

void ScoreOperands::load_queries(std::int64_t batch, const QueryBlock& block) {
  if (format_ == Format::bf16) return load_rounded_queries(batch, block);
  float* rows = queries_ + block.slot * dim_;
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::int64_t row = problem_.query_row(block.first + r);
    load_row(problem_.query, batch, block.head, row, rows + r * dim_, dim_);
    if (problem_.rotary != nullptr) problem_.rotary->apply(rows + r * dim_, problem_.masks.position(row));
  }
  if (!problem_.gravity) kernels_.scale(rows, block.rows * dim_, problem_.scale);
}

void ScoreOperands::load_rounded_queries(std::int64_t batch, const QueryBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    copy_halves(problem_.query, batch, block.head, problem_.query_row(block.first + r),
                halves(queries_ + (block.slot + r) * dim_), 2 * dim_);
  }
  if (!std::signbit(problem_.scale)) return;
  constexpr Bf16 kSign = 0x8000;
  Bf16* first = halves(queries_ + block.slot * dim_);
  std::transform(first, first + 2 * block.rows * dim_, first, [](Bf16 x) { return static_cast<Bf16>(x ^ kSign); });
}

float ScoreOperands::unit() const { return format_ == Format::f32 ? 1.0F : std::fabs(problem_.scale); }

void ScoreOperands::load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span) {
  if (format_ == Format::bf16) return load_rounded_keys(batch, kv_head, span);
  std::int64_t stride = dim_;
  const float* direct = problem_.rotary == nullptr ? float_rows(problem_.key, batch, kv_head, &stride) : nullptr;
  if (direct != nullptr) direct += span.first * stride;
  if (few_rows_) return load_in_rows(batch, kv_head, span, direct, stride);
  float* panel = panels_;
  for (std::int64_t key = 0; key < span.size(); key += kernels_.panel, panel += kernels_.panel * dim_) {
    const std::int64_t n = std::min(kernels_.panel, span.size() - key);
    if (direct != nullptr) {
      kernels_.pack_panel(direct + key * stride, stride, n, dim_, panel);
      continue;
    }
    load_floats(batch, kv_head, {span.first + key, span.first + key + n}, staging_);
    kernels_.pack_panel(staging_, dim_, n, dim_, panel);
  }
}

// Where they lie, if they lie there as float32; else in the room of the panels.
void ScoreOperands::load_in_rows(std::int64_t batch, std::int64_t kv_head, KeySpan span, const float* direct,
                                 std::int64_t stride) {
  if (direct == nullptr) load_floats(batch, kv_head, span, panels_);
  keys_ = direct != nullptr ? direct : panels_;
  key_stride_ = stride;
  key_count_ = span.size();
}

void ScoreOperands::load_floats(std::int64_t batch, std::int64_t kv_head, KeySpan span, float* rows) const {
  for (std::int64_t key = span.first; key < span.last; ++key, rows += dim_) {
    load_row(problem_.key, batch, kv_head, key, rows, dim_);
    if (problem_.rotary != nullptr) problem_.rotary->apply(rows, key);
  }
}

// Pairs move as floats do.
void ScoreOperands::load_rounded_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span) {
  float* panel = panels_;
  for (std::int64_t key = span.first; key < span.last; key += kernels_.panel, panel += kernels_.panel * dim_) {
    const std::int64_t n = std::min(kernels_.panel, span.last - key);
    for (std::int64_t i = 0; i < n; ++i) {
      copy_halves(problem_.key, batch, kv_head, key + i, halves(staging_ + i * dim_), 2 * dim_);
    }
    kernels_.pack_panel(staging_, dim_, n, dim_, panel);
  }
}

void ScoreOperands::score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, const ScoreRows& to) const {
  if (few_rows_) {
    const std::int64_t n = std::min(kernels_.panel, key_count_ - offset);
    kernels_.score_keys(queries_of(block) + rows.first * dim_, rows.size(), dim_, keys_ + offset * key_stride_,
                        key_stride_, n, to.scores + rows.first * to.stride + offset, to.stride,
                        to.maxima + rows.first * kernels_.lanes);
    return;
  }
  const float* panel = panels_ + offset * dim_;
  if (format_ == Format::f32) {
    const auto score = problem_.gravity ? kernels_.distance_panel : kernels_.score_panel;
    score(queries_of(block) + rows.first * dim_, rows.size(), dim_, panel, to.scores + rows.first * to.stride + offset,
          to.stride, to.maxima + rows.first * kernels_.lanes);
    return;
  }
  const std::int64_t first = rows.first / Bf16Kernels::kRows * Bf16Kernels::kRows;  // the last tile ends in the block
  bf16_kernels()->score_panel(reinterpret_cast<const Bf16*>(queries_of(block) + first * dim_), rows.last - first,
                              2 * dim_, reinterpret_cast<const Bf16*>(panel), to.scores + first * to.stride + offset,
                              to.stride, to.maxima + first * kernels_.lanes);
}

}  // namespace rattention
