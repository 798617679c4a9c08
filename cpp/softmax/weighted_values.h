// The values of a tile of keys and their product with the weights, in float32 or in bfloat16.
#pragma once

#include <cstdint>
#include <vector>

#include "core/scratch.h"
#include "core/tensor.h"
#include "kernels/tile_kernels.h"
#include "softmax/score_tile.h"

namespace rattention {

class WeightedValues {
 public:
  // Without values (nullptr) there is nothing to load and nothing to add. Values of few rows are not aligned first.
  WeightedValues(const TensorView* value, Scratch& scratch, Format format, bool few_rows);
  // Floats the constructor takes from the scratch.
  static std::int64_t floats(const TensorView* value, Format format);
  static std::int64_t columns(const TensorView* value);  // value_dim rounded up to whole vectors

  // Rows that add() takes at a time; others work at some loss.
  std::int64_t rows_at_a_time() const;
  void load(std::int64_t batch, std::int64_t kv_head, KeySpan span);
  // The keys that add() takes for those of `keys`; the weights of all of them must be set.
  KeySpan whole_steps(KeySpan keys) const;
  // output[rows][columns] += weights[rows][keys] . values[keys], without elements that are infinite or NaN: 0 times
  // those would leak them to rows that do not see the key.
  void add(ScoreTile& tile, std::int64_t first_row, std::int64_t rows, KeySpan keys, float* output) const;

  // The keys of the tile that have such elements, in order: a row adds those that it sees by itself.
  const std::vector<std::int64_t>& not_finite() const { return not_finite_; }
  void add_not_finite(float weight, std::int64_t key, float* output) const;

 private:
  void load_floats(KeySpan span);
  const float* rows_in_place();
  void load_pairs(KeySpan span);
  bool finite(std::int64_t rows) const;  // the first rows of the tile
  void take_out_not_finite();
  const float* values_at(std::int64_t key) const { return tile_values_ + (key - keys_.first) * stride_; }

  const TensorView* value_;
  const TileKernels& kernels_;
  const Format format_;
  const bool few_rows_;
  const std::int64_t columns_;
  float* values_;  // copies, where needed, or pairs
  float* staging_;
  const float* tile_values_ = nullptr;
  std::int64_t stride_ = 0;
  std::int64_t batch_ = 0;
  std::int64_t kv_head_ = 0;
  KeySpan keys_;
  std::vector<std::int64_t> not_finite_;
};

}  // namespace rattention
