// The tiled score loop that all mechanisms of the softmax family share.
//
// Work is cut into tasks: a few blocks of query rows of the heads that read one key/value head. A task walks over the
// key tiles its rows can see, packs each tile once and scores it block by block; a visitor turns the scores into
// outputs, statistics or gradients. Tiles lie on a grid fixed by the key length alone, so results depend neither on
// tasks nor on threads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/tile_kernels.h"
#include "softmax/score_operands.h"

namespace rattention {

// Blocks per task, at most. More of them spread the packing of a tile over more rows; fewer balance better between
// threads, and there are fewer where tasks would not go round.
constexpr std::int64_t kTaskBlocks = 96;

struct Task {
  std::int64_t part = 0;  // in the order of the plan
  std::int64_t lane = 0;  // key/value head, counted over the batch
  std::int64_t batch = 0;
  std::int64_t kv_head = 0;
  std::vector<QueryBlock> blocks;
  KeySpan keys;
  std::int64_t rows = 0;

  void add(QueryBlock block);
};

// The rows [rows.first, rows.last) of all query heads that read one key/value head, as a task of its own.
Task row_task(const ScoreProblem& problem, std::int64_t batch, std::int64_t kv_head, KeySpan rows);

// The tasks of a problem: parts of the query rows of each key/value head.
class TaskPlan {
 public:
  // As many as the threads need, from the last rows to the first: under causality the last are the longest and should
  // start first. For passes whose results do not depend on the parts.
  explicit TaskPlan(const ScoreProblem& problem);
  // Parts of a fixed number of blocks, from the first rows to the last.
  TaskPlan(const ScoreProblem& problem, std::int64_t blocks_per_task);

  std::int64_t count() const { return heads_ * parts_; }
  std::int64_t parts() const { return parts_; }
  std::int64_t heads() const { return heads_; }
  Task task(std::int64_t index) const;

 private:
  QueryBlock block(std::int64_t kv_head, std::int64_t index) const;

  const ScoreProblem& problem_;
  std::int64_t heads_ = 0;   // key/value heads of the whole batch
  std::int64_t blocks_ = 0;  // per key/value head
  std::int64_t parts_ = 0;   // tasks per key/value head
  bool last_first_ = false;
};

// Working memory for one tile of scores.
class ScoreTile {
 public:
  // Floats from row to row: the tile and a vector of padding; no power of two, which would map all rows to one cache
  // set.
  static constexpr std::int64_t kStride = kTileKeys + 16;

  ScoreTile(const ScoreProblem& problem, Scratch& scratch, std::int64_t query_rows, Format format = Format::f32);
  // Floats the constructor takes from the scratch.
  static std::int64_t floats(const ScoreProblem& problem, std::int64_t query_rows, Format format = Format::f32);

  void load_queries(std::int64_t batch, const QueryBlock& block) { operands_.load_queries(batch, block); }
  // The keys to load for those of `span`.
  KeySpan whole_panels(KeySpan span) const { return operands_.whole_panels(span); }
  // Packs the keys of `span`, which lies within one tile of the grid.
  void load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span);
  // Scores the block against the loaded keys.
  void score(std::int64_t batch, const QueryBlock& block);

  // After score(): the keys of row r (counted within the block) in this tile, and their scores, -inf
  // where hidden. They are padded with -inf to whole vectors. Those of bfloat16 may lack a factor that to_weights_of()
  // brings in.
  KeySpan keys_of(std::int64_t r) const { return spans_[r]; }
  std::int64_t visible_of(std::int64_t r) const { return visible_[r]; }  // how many of them are not hidden
  float max_of(std::int64_t r) const { return top_[r]; }                 // the largest score, NaN left out
  float* scores_of(std::int64_t r) { return row(r) + (spans_[r].first - keys_.first); }
  // Turns the scores of row r of the block scored last into weights e^(score - lse). A NaN in lse comes to the keys not
  // hidden. In float32 an lse of some hundreds would miss a weight's last digits.
  void to_weights(std::int64_t batch, const QueryBlock& block, std::int64_t r, double lse);
  // Turns the scores of row r into weights e^(score - shift) in the format of the tile, and returns their sum.
  float to_weights_of(std::int64_t r, float shift);
  // Makes 0 the weights of those of `keys` that row r does not see.
  void clear_unseen(std::int64_t r, KeySpan keys);
  float weight_at(std::int64_t r, std::int64_t key) const;
  // The row's storage at `key`, which need not be one that it sees.
  float* at(std::int64_t r, std::int64_t key) { return row(r) + (key - keys_.first); }
  Bf16* rounded_at(std::int64_t r, std::int64_t key) { return reinterpret_cast<Bf16*>(row(r)) + (key - keys_.first); }
  KeySpan keys() const { return keys_; }
  // Keeps of gravitational scores, in [kBlockRows][kStride] floats for the backward pass, the squared distances where
  // there is an exponent, else 1 / (squared distance + eps).
  void keep_distances(float* distances) { distances_ = distances; }
  float* distances_of(std::int64_t r) { return distances_ + r * kStride + (spans_[r].first - keys_.first); }
  // The loaded keys' masses, from keys().first on, for the head scored last.
  const float* masses() const { return masses_; }
  // The block's queries as loaded: times scale for dot products.
  const float* queries_of(const QueryBlock& block) const { return operands_.queries_of(block); }
  // Whether row r sees some key of this tile.
  bool sees_some(std::int64_t r) const { return visible_[r] > 0; }
  // Lanes of loaded keys, all bits set where masks other than the span show the key to the row, until the next call;
  // nullptr where they show all.
  const std::int32_t* shown_lanes(std::int64_t batch, std::int64_t head, std::int64_t query_row, KeySpan keys);

 private:
  float* row(std::int64_t r) const { return scores_ + r * kStride; }
  void look_at_masks(std::int64_t batch);
  bool has_padding(KeySpan keys) const;
  void load_masses(std::int64_t batch, std::int64_t head);
  KeySpan span_of(std::int64_t batch, std::int64_t query_row) const;
  KeySpan panels_seen_by_all(const QueryBlock& block) const;
  void score_panels(const QueryBlock& block);
  float max_around_whole_panels(std::int64_t r);
  void finish_row(std::int64_t batch, const QueryBlock& block, std::int64_t r);
  void apply_unit(std::int64_t r);
  void add_gravity(std::int64_t batch, std::int64_t head, std::int64_t query_row, std::int64_t r, float* scores);
  bool add_terms(std::int64_t batch, const QueryBlock& block, std::int64_t r, float* scores);

  const ScoreProblem& problem_;
  const TileKernels& kernels_;
  ScoreOperands operands_;
  float* scores_;
  std::int32_t* lanes_;      // of the tile: padding
  std::int32_t* row_lanes_;  // of one row
  float* masses_;            // of the loaded keys, for the head scored last
  float* distances_ = nullptr;
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

// Walks over the key tiles of a task. visit.tile(span) is called once per tile, visit.block(tile, block) once per block
// that sees some of it.
template <typename Visitor>
void sweep(const Task& task, ScoreTile& tile, Visitor& visit) {
  for (const QueryBlock& block : task.blocks) tile.load_queries(task.batch, block);
  for (std::int64_t start = task.keys.first / kTileKeys * kTileKeys; start < task.keys.last; start += kTileKeys) {
    stop_if_asked();
    const KeySpan span = tile.whole_panels(task.keys.intersect({start, start + kTileKeys}));
    tile.load_keys(task.batch, task.kv_head, span);
    visit.tile(span);
    for (const QueryBlock& block : task.blocks) {
      if (block.keys.intersect(span).empty()) continue;
      tile.score(task.batch, block);
      visit.block(tile, block);
    }
  }
}

}  // namespace rattention
