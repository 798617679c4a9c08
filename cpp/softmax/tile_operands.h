// The operands of both products of the score loop in one format: queries, packed keys, weights and values. What lies
// between the products, the scores and their softmax, is float32 in every format. This is all that the loop knows of
// formats.
#pragma once

#include <cstdint>
#include <vector>

#include "core/scratch.h"
#include "core/tensor.h"
#include "kernels/tile_kernels.h"
#include "softmax/task_plan.h"

namespace rattention {

class TileOperands {
 public:
  TileOperands(const TileOperands&) = delete;
  TileOperands& operator=(const TileOperands&) = delete;
  virtual ~TileOperands() = default;

  // The keys to load for those of `span`, which lies within one tile.
  virtual KeySpan whole_panels(KeySpan span) const = 0;
  virtual void load_queries(std::int64_t batch, const QueryBlock& block) = 0;
  void load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span);
  // Of the keys loaded last.
  void load_values();

  // What the products are still to be multiplied with, > 0.
  virtual float unit() const = 0;
  // Rows [rows.first, rows.last) of the block with the panel of keys that begins at `offset` of the loaded ones, into
  // tile[kBlockRows][kTileStride]: the rule's products, but for unit(). Other rows of the block may be overwritten.
  // Where scores are products, maxima[kBlockRows][lanes] become the larger of themselves and the panel's, lane by lane.
  virtual void score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, float* tile,
                           float* maxima) const = 0;

  // Of a row of the tile, from its first key on. The n scores from the key `offset` on become weights
  // e^(unit * (score - shift)) in the format and in its storage, the beginning of the row; returns their sum. Padded as
  // TileKernels::exp is.
  virtual float to_weights(float* row, std::int64_t offset, std::int64_t n, float unit, float shift) const = 0;
  virtual void clear_weights(float* row, std::int64_t first, std::int64_t last) const = 0;
  virtual float weight_at(const float* row, std::int64_t offset) const = 0;

  // value_dim rounded up to whole vectors; 0 without values.
  static std::int64_t columns(const TensorView* value) { return value == nullptr ? 0 : padded(value->dim()); }
  // Rows that add_values() takes at a time; others work at some loss.
  virtual std::int64_t rows_at_a_time() const = 0;
  // The keys that add_values() takes for those of `keys`; the weights of all of them must be set.
  virtual KeySpan whole_steps(KeySpan keys) const = 0;
  // output[rows][columns] += weights[rows][keys] . values[keys], without elements that are infinite or NaN: 0 times
  // those would leak them to rows that do not see the key.
  virtual void add_values(const float* weights, std::int64_t rows, KeySpan keys, float* output) const = 0;
  // The loaded keys that have such elements, in order: a row adds those that it sees by itself.
  const std::vector<std::int64_t>& not_finite() const { return not_finite_; }
  void add_not_finite(float weight, std::int64_t key, float* output) const;

 protected:
  // Without values (nullptr) there is nothing to load and nothing to add.
  TileOperands(const ScoreProblem& problem, const TensorView* value)
      : problem_(problem), value_(value), kernels_(tile_kernels()), columns_(columns(value)) {}

  virtual void pack_keys() = 0;
  virtual void pack_values() = 0;  // and lists those that are not finite

  const ScoreProblem& problem_;
  const TensorView* const value_;
  const TileKernels& kernels_;
  const std::int64_t columns_;
  std::int64_t batch_ = 0;
  std::int64_t kv_head_ = 0;
  KeySpan keys_;
  std::vector<std::int64_t> not_finite_;
  float* value_row_ = nullptr;  // [columns]
};

}  // namespace rattention
