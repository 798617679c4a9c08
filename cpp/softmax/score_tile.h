// One tile of scores: a block of query rows against some of the keys, as a row-wise softmax takes them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/scratch.h"
#include "kernels/tile_kernels.h"
#include "softmax/score_rule.h"
#include "softmax/task_plan.h"
#include "softmax/tile_operands.h"

namespace rattention {

// Working memory for one tile of scores.
class ScoreTile {
 public:
  static constexpr std::int64_t kStride = kTileStride;

  // For tasks of `query_rows`. The backward pass gives where the score rule's own gradients go.
  ScoreTile(const ScoreProblem& problem, TileOperands& operands, std::int64_t query_rows, Scratch& scratch,
            const RuleGradients* gradients = nullptr);
  // Floats the constructor takes from the scratch.
  static std::int64_t floats(const ScoreProblem& problem, std::int64_t query_rows, bool backward = false);

  void load_queries(std::int64_t batch, const QueryBlock& block) { operands_.load_queries(batch, block); }
  // The keys to load for those of `span`.
  KeySpan whole_panels(KeySpan span) const { return operands_.whole_panels(span); }
  // Packs the keys of `span`, which lies within one tile of the grid.
  void load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span);
  // Scores the block against the loaded keys.
  void score(std::int64_t batch, const QueryBlock& block);

  // After score(): the keys of row r (counted within the block) in this tile, and their scores, -inf
  // where hidden. They are padded with -inf to whole vectors. Those of operands with a unit may lack it until
  // to_weights_of().
  KeySpan keys_of(std::int64_t r) const { return spans_[r]; }
  std::int64_t visible_of(std::int64_t r) const { return visible_[r]; }  // how many of them are not hidden
  float max_of(std::int64_t r) const { return top_[r]; }                 // the largest score, NaN left out
  float* scores_of(std::int64_t r) { return row(r) + (spans_[r].first - keys_.first); }
  // Turns the scores of row r of the block scored last into weights e^(score - lse). A NaN in lse comes to the keys not
  // hidden. In float32 an lse of some hundreds would miss a weight's last digits.
  void to_weights(std::int64_t batch, const QueryBlock& block, std::int64_t r, double lse);
  // Turns the scores of row r into weights e^(score - shift) in the format of the operands, and returns their sum.
  float to_weights_of(std::int64_t r, float shift);
  // Makes 0 the weights of those of `keys` that row r does not see.
  void clear_unseen(std::int64_t r, KeySpan keys);
  float weight_at(std::int64_t r, std::int64_t key) const;
  // The row's storage, from the first of keys() on, and at a key that the row need not see.
  float* row(std::int64_t r) const { return scores_ + r * kStride; }
  float* at(std::int64_t r, std::int64_t key) { return row(r) + (key - keys_.first); }
  KeySpan keys() const { return keys_; }
  RuleTile& rule() { return *rule_; }
  // Whether row r sees some key of this tile.
  bool sees_some(std::int64_t r) const { return visible_[r] > 0; }
  // A flag per key, all bits set where masks other than the span show the key to the row, until the next call;
  // nullptr where they show all.
  const std::int32_t* shown_flags(std::int64_t batch, std::int64_t head, std::int64_t query_row, KeySpan keys);

 private:
  void look_at_masks(std::int64_t batch);
  bool has_padding(KeySpan keys) const;
  KeySpan span_of(std::int64_t batch, std::int64_t query_row) const;
  KeySpan panels_seen_by_all(const QueryBlock& block) const;
  void score_panels(const QueryBlock& block);
  float max_around_whole_panels(std::int64_t r);
  void finish_row(std::int64_t batch, const QueryBlock& block, std::int64_t r);
  void apply_unit(std::int64_t r);
  bool add_terms(std::int64_t batch, const QueryBlock& block, std::int64_t r, float* scores);

  const ScoreProblem& problem_;
  const TileKernels& kernels_;
  TileOperands& operands_;
  std::unique_ptr<RuleTile> rule_;
  float* scores_;
  std::int32_t* padding_flags_;  // of the tile
  std::int32_t* row_flags_;      // of one row
  float* maxima_;  // per row and lane, as the scores of whole_ are made; then room for maxima nobody wants
  KeySpan whole_;  // the panels that every row of the block sees whole
  KeySpan keys_;
  float top_[kBlockRows] = {};
  float unscaled_top_[kBlockRows] = {};  // without unit_
  float unit_[kBlockRows] = {};          // what the scores of a row are still to be multiplied with
  KeySpan spans_[kBlockRows];
  std::int64_t visible_[kBlockRows] = {};
  // What the masks say of the loaded keys as a whole: padding is the same for every row, and segments that do not occur
  // among the keys need no look at each of them.
  bool all_padded_ = false;
  std::vector<std::int64_t> padded_before_;  // of the loaded keys: how many of the first j
  std::int64_t lowest_segment_ = 0;
  std::int64_t highest_segment_ = 0;
};

}  // namespace rattention
