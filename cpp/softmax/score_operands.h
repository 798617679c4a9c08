// The operands of both products of the score loop, in float32 or in bfloat16: queries and packed keys here, the values
// in weighted_values.h. What lies between the products, the scores and their softmax, is float32 in either case.
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "kernels/bf16_kernels.h"
#include "kernels/tile_kernels.h"
#include "softmax/task_plan.h"

namespace rattention {

enum class Format : std::uint8_t { f32, bf16 };

// Where the scores of a block go: row r at scores + r * stride, its maxima by lanes.
struct ScoreRows {
  float* scores;
  std::int64_t stride;
  float* maxima;
};

class ScoreOperands {
 public:
  // Format::bf16 needs bf16_kernels(), queries and keys of bfloat16, and dot products without rotation.
  ScoreOperands(const ScoreProblem& problem, Scratch& scratch, std::int64_t query_rows, Format format);
  // Floats the constructor takes from the scratch.
  static std::int64_t floats(const ScoreProblem& problem, std::int64_t query_rows, Format format);

  Format format() const { return format_; }
  // The keys to load for those of `span`, which lies within one tile. Sums over pairs of keys round by pairs, and those
  // must not depend on the tasks: bfloat16 begins with a whole panel of the grid.
  KeySpan whole_panels(KeySpan span) const;
  void load_queries(std::int64_t batch, const QueryBlock& block);
  void load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span);
  // What the scores are still to be multiplied with, > 0: bfloat16 queries would be rounded by it.
  float unit() const;
  // Scores, but for unit(), or squared distances, of some rows of the block with the
  // panel of keys that begins at `offset` of the loaded ones. Rows of the block beside these may be overwritten.
  void score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, const ScoreRows& to) const;
  // Queries of Format::f32 as loaded: times scale for dot products.
  const float* queries_of(const QueryBlock& block) const { return queries_ + block.slot * dim_; }

 private:
  void load_rounded_queries(std::int64_t batch, const QueryBlock& block);
  void load_in_rows(std::int64_t batch, std::int64_t kv_head, KeySpan span, const float* direct, std::int64_t stride);
  void load_floats(std::int64_t batch, std::int64_t kv_head, KeySpan span, float* rows) const;
  void load_rounded_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span);

  const ScoreProblem& problem_;
  const TileKernels& kernels_;
  const Format format_;
  const std::int64_t dim_;  // of a row as it lies here, in floats; bfloat16 lie in pairs
  const bool few_rows_;
  float* queries_;
  const float* keys_ = nullptr;  // row by row, for few rows; else packed
  std::int64_t key_stride_ = 0;
  std::int64_t key_count_ = 0;
  float* panels_;
  float* staging_;
};

}  // namespace rattention
