// The values of a tile of keys and their product with the weights, in float32 or in bfloat16.
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "core/tensor.h"
#include "core/tile_kernels.h"
#include "mechanisms/score_tiles.h"

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
  // output[rows][columns] += weights[rows][keys] . values[keys], without the parts named by is_apart().
  void add(ScoreTile& tile, std::int64_t first_row, std::int64_t rows, KeySpan keys, float* output) const;

  // What is infinite or NaN is left out of add(), because 0 times it would leak it to rows that do not see the key. It
  // is to be added key by key where the key is seen: whole rows of float32, single elements of bfloat16.
  bool any_apart() const { return any_apart_; }
  bool is_apart(std::int64_t key) const { return apart_[key - keys_.first] != 0; }
  void add_apart(float weight, std::int64_t key, float* output) const;

 private:
  void load_floats(KeySpan span);
  const float* rows_in_place();
  void load_pairs(KeySpan span);
  bool finite(std::int64_t rows) const;  // the first rows of the tile
  const float* values_at(std::int64_t key) const { return tile_values_ + (key - keys_.first) * stride_; }

  const TensorView* value_;
  const TileKernels& kernels_;
  const Format format_;
  const bool few_rows_;
  const std::int64_t columns_;
  float* values_;  // converted copies, where needed, or pairs
  float* staging_;
  const float* tile_values_ = nullptr;
  std::int64_t stride_ = 0;
  std::int64_t batch_ = 0;
  std::int64_t kv_head_ = 0;
  KeySpan keys_;
  bool any_apart_ = false;
  std::uint8_t apart_[kTileKeys] = {};
};

}  // namespace rattention
