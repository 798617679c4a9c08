// Operands in float32, whatever the arrays hold: any score rule, any masks.
#pragma once

#include "softmax/tile_operands.h"

namespace rattention {

class FloatOperands final : public TileOperands {
 public:
  // Without values (nullptr) there is nothing to load and nothing to add.
  FloatOperands(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows, Scratch& scratch);
  // Floats the constructor takes from the scratch.
  static std::int64_t floats(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows);

  KeySpan whole_panels(KeySpan span) const override { return span; }
  void load_queries(std::int64_t batch, const QueryBlock& block) override;
  float unit() const override { return 1; }
  void score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, float* tile,
                   float* maxima) const override;
  float to_weights(float* row, std::int64_t offset, std::int64_t n, float unit, float shift) const override;
  void clear_weights(float* row, std::int64_t first, std::int64_t last) const override;
  float weight_at(const float* row, std::int64_t offset) const override { return row[offset]; }
  std::int64_t rows_at_a_time() const override { return kernels_.block; }
  KeySpan whole_steps(KeySpan keys) const override { return keys; }
  void add_values(const float* weights, std::int64_t rows, KeySpan keys, float* output) const override;

 private:
  void pack_keys() override;
  void pack_values() override;
  void find_key_rows();
  const float* direct_keys(std::int64_t* stride) const;
  void load_floats(KeySpan span, float* rows) const;
  const float* values_in_place();
  bool find_bf16_values();
  template <typename Element>
  bool finite_values(bool (*all_finite)(const Element*, std::int64_t), const Element* rows) const;
  void take_out_not_finite();

  const std::int64_t dim_;
  const bool dot_;
  const bool keys_in_rows_;  // not packed
  float* queries_;
  // Keys in rows, once loaded: one of the two.
  const float* key_rows_ = nullptr;
  const std::uint16_t* bf16_key_rows_ = nullptr;
  std::int64_t key_stride_ = 0;
  float* panels_;
  float* staging_;
  float* values_;  // copies, where needed
  // Once loaded, these or those of bfloat16 if there are any.
  const float* tile_values_ = nullptr;
  const std::uint16_t* bf16_tile_values_ = nullptr;
  std::int64_t value_stride_ = 0;
};

}  // namespace rattention
