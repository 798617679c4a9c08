// The tiled score loop that all mechanisms of the softmax family share.
//
// Work is cut into tasks: a few blocks of query rows of the heads that read one key/value head. A task walks over the
// key tiles its rows can see, packs each tile once and scores it block by block; a visitor turns the scores into
// outputs, statistics or gradients. Tiles lie on a grid fixed by the key length alone, so results depend neither on
// tasks nor on threads.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/rotary.h"
#include "core/scratch.h"
#include "core/tensor.h"
#include "core/tile_kernels.h"
#include "mechanisms/masks.h"

namespace rattention {

constexpr float kLog2E = 1.44269504088896340736F;
constexpr float kLn2 = 0.693147180559945309417F;

// Rows of scores that are hot in the first-level cache while a panel of keys is.
constexpr std::int64_t kBlockRows = 48;
// Keys per tile: long enough that per-row, per-tile work (maximum, rescaling) is small, short enough for keys, values,
// queries and outputs of a task to share the second-level cache.
constexpr std::int64_t kTileKeys = 1024;
// Blocks per task, at most. More of them spread the packing of a tile over more rows; fewer balance better between
// threads, and there are fewer where tasks would not go round.
constexpr std::int64_t kTaskBlocks = 96;

// The score rule G m_i m_j / (|q_i - k_j|^2 + eps), in place of the scaled dot product.
struct Gravity {
  TensorView query_mass;            // [batch, heads, query_length, 1]
  TensorView key_mass;              // [batch, heads or kv_heads, key_length, 1]
  const float* strength = nullptr;  // G, one per query head
  float eps = 0.0F;

  // The head of key_mass that query head `head` reads.
  std::int64_t mass_head(std::int64_t head, std::int64_t query_heads) const {
    return head / (query_heads / key_mass.heads());
  }
};

struct ScoreProblem {
  TensorView query;
  TensorView key;
  float scale = 1.0F;
  std::optional<Gravity> gravity;
  const Rotary* rotary = nullptr;  // turns queries and keys to their positions, where given
  Masks masks;
  const float* log_discount = nullptr;  // one per query head, or none
  // Query rows to score, nullptr for all. Row r of the loop is query row rows[r].
  const std::int64_t* rows = nullptr;
  std::int64_t row_count = 0;

  std::int64_t group() const { return query.heads() / key.heads(); }
  std::int64_t query_row(std::int64_t r) const { return rows != nullptr ? rows[r] : r; }
};

// query key^T / sqrt(head_dim) for every row, the last query at the position of the last key, nothing hidden: what
// callers start from. std::invalid_argument where query and key do not fit.
ScoreProblem scaled_dot_product(const TensorView& query, const TensorView& key);

// Consecutive rows [first, first + rows) of one query head.
struct QueryBlock {
  std::int64_t head = 0;
  std::int64_t first = 0;
  std::int64_t rows = 0;
  std::int64_t slot = 0;  // where the block's rows lie in the task's buffers
  KeySpan keys;           // all that its rows can see
};

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

  ScoreTile(const ScoreProblem& problem, Scratch& scratch, std::int64_t query_rows);
  // Floats the constructor takes from the scratch.
  static std::int64_t floats(const ScoreProblem& problem, std::int64_t query_rows);

  void load_queries(std::int64_t batch, const QueryBlock& block);
  // Packs the keys of `span`, which lies within one tile of the grid.
  void load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span);
  // Scores the block against the loaded keys.
  void score(std::int64_t batch, const QueryBlock& block);

  // After score(): the keys of row r (counted within the block) in this tile, and their scores in units of log2, -inf
  // where hidden. They are padded with -inf to whole vectors.
  KeySpan keys_of(std::int64_t r) const { return spans_[r]; }
  std::int64_t visible_of(std::int64_t r) const { return visible_[r]; }  // how many of them are not hidden
  float max_of(std::int64_t r) const { return top_[r]; }                 // the largest score, NaN left out
  float* scores_of(std::int64_t r) { return row(r) + (spans_[r].first - keys_.first); }
  // Turns the scores of row r into weights 2^(score - lse), lse in natural units. A NaN in lse stays with the keys not
  // hidden.
  void to_weights(std::int64_t r, float lse);
  // The row's storage at `key`, which need not be one that it sees.
  float* at(std::int64_t r, std::int64_t key) { return row(r) + (key - keys_.first); }
  KeySpan keys() const { return keys_; }
  // Keeps 1 / (squared distance + eps) of gravitational scores in [kBlockRows][kStride] floats, for the backward pass.
  void keep_inverse_distances(float* inverses) { inverses_ = inverses; }
  float* inverse_distances_of(std::int64_t r) { return inverses_ + r * kStride + (spans_[r].first - keys_.first); }
  // The loaded keys' masses, from keys().first on, for the head scored last.
  const float* masses() const { return masses_; }
  // The block's queries as loaded: times scale and log2(e) for dot products.
  const float* queries_of(const QueryBlock& block) const { return queries_ + block.slot * problem_.query.dim(); }

 private:
  float* row(std::int64_t r) { return scores_ + r * kStride; }
  void look_at_masks(std::int64_t batch);
  void load_masses(std::int64_t batch, std::int64_t head);
  KeySpan span_of(std::int64_t batch, std::int64_t query_row) const;
  KeySpan panels_seen_by_all(const QueryBlock& block) const;
  void score_panels(const QueryBlock& block);
  float max_around_whole_panels(std::int64_t r);
  void finish_row(std::int64_t batch, const QueryBlock& block, std::int64_t r);
  bool add_terms(std::int64_t batch, const QueryBlock& block, std::int64_t r, float* scores);
  const std::int32_t* shown_lanes(std::int64_t batch, std::int64_t head, std::int64_t query_row, KeySpan keys);

  const ScoreProblem& problem_;
  const TileKernels& kernels_;
  float* queries_;
  float* panels_;
  float* scores_;
  float* staging_;
  std::int32_t* lanes_;      // of the tile: padding
  std::int32_t* row_lanes_;  // of one row
  float* masses_;            // of the loaded keys, for the head scored last
  float* inverses_ = nullptr;
  float* maxima_;  // per row and lane, as the scores of whole_ are made; then room for maxima nobody wants
  KeySpan whole_;  // the panels that every row of the block sees whole
  KeySpan keys_;
  float top_[kBlockRows] = {};
  KeySpan spans_[kBlockRows];
  std::int64_t visible_[kBlockRows] = {};
  // What the masks say of the loaded keys as a whole: padding is the same for every row, and segments that do not occur
  // among the keys need no look at each of them.
  bool some_padded_ = false;
  bool all_padded_ = false;
  std::int64_t lowest_segment_ = 0;
  std::int64_t highest_segment_ = 0;
};

// Walks over the key tiles of a task. visit.tile(span) is called once per tile, visit.block(tile, block) once per block
// that sees some of it.
template <typename Visitor>
void sweep(const Task& task, ScoreTile& tile, Visitor& visit) {
  for (const QueryBlock& block : task.blocks) tile.load_queries(task.batch, block);
  for (std::int64_t start = task.keys.first / kTileKeys * kTileKeys; start < task.keys.last; start += kTileKeys) {
    const KeySpan span = task.keys.intersect({start, start + kTileKeys});
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
