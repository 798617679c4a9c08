// What the score loop is asked for: queries, keys, how they are scored and which of them see each other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "core/tensor.h"
#include "kernels/rotary.h"
#include "softmax/masks.h"
#include "softmax/relative_bias.h"

namespace rattention {

constexpr float kLog2E = 1.44269504088896340736F;

// Rows of scores that are hot in the first-level cache while a panel of keys is: 48 by 64 scores are 12 KiB, a panel of
// depth 64 is 16 KiB (AVX-512). A multiple of the 6 and of the 16 rows that kernels take at a time.
constexpr std::int64_t kBlockRows = 48;
// Keys per tile: long enough that per-row, per-tile work (maximum, rescaling) is small, short enough for keys, values,
// queries and outputs of a task to share a second-level cache of 2 MiB (at depth 64, keys and values are 256 KiB each).
// 2-3 % faster than 512 at every length measured there. No processor with less was tuned for.
constexpr std::int64_t kTileKeys = 1024;
// Floats from row to row of a tile: its keys and a vector of padding; no power of two, which would map all rows to one
// cache set.
constexpr std::int64_t kTileStride = kTileKeys + 16;
// Query rows per key/value head for which moving keys and values, to pack or to align them, is most of the work.
constexpr std::int64_t kFewRows = 8;

class ScoreRule;

struct ScoreProblem {
  TensorView query;
  TensorView key;
  float scale = 1.0F;
  std::shared_ptr<const ScoreRule> rule;
  const Rotary* rotary = nullptr;  // turns queries and keys to their positions, where given
  Masks masks;
  const float* log_discount = nullptr;  // one per query head, or none
  bool discount_per_query = false;      // one per query, [batch, heads, query_length], in place of that
  std::shared_ptr<const RelativeBias> relative_bias;
  // Per query head, or none: the score of a key that every row sees, whose value is 0. Weights sum to less than one.
  const float* sinks = nullptr;
  // Query rows to score, nullptr for all. Row r of the loop is query row rows[r].
  const std::int64_t* rows = nullptr;
  std::int64_t row_count = 0;

  std::int64_t group() const { return query.heads() / key.heads(); }
  std::int64_t row_blocks() const { return ceil_div(row_count, kBlockRows); }
  // Depends on the problem alone, not on its tasks, and so do results.
  bool few_rows() const { return row_count * group() <= kFewRows; }
  std::int64_t query_row(std::int64_t r) const { return rows != nullptr ? rows[r] : r; }
  float log_discount_of(std::int64_t batch, std::int64_t head, std::int64_t query_row) const {
    return log_discount[discount_per_query ? (batch * query.heads() + head) * query.length() + query_row : head];
  }
  // Distances are counted from the position within the row's span that is nearest to its own: what lies between is the
  // same for all its keys, and far from them it would take the digits in which they differ.
  std::int64_t distance_origin(std::int64_t batch, std::int64_t query_row) const {
    const KeySpan keys = masks.span(batch, query_row);
    return std::clamp(masks.position(query_row), keys.first, std::max(keys.first, keys.last - 1));
  }
  // The distance from the row's position to that origin.
  double distance_left_out(std::int64_t batch, std::int64_t query_row) const {
    return std::abs(static_cast<double>(masks.position(query_row) - distance_origin(batch, query_row)));
  }
  // What the row's scores, and with them its lse, lack of their discount: natural units.
  double discount_left_out(std::int64_t batch, std::int64_t head, std::int64_t query_row) const {
    if (log_discount == nullptr) return 0;
    return log_discount_of(batch, head, query_row) * distance_left_out(batch, query_row);
  }
};

// The dot products query key^T / sqrt(head_dim) of every row, the last query at the position of the last key, nothing
// hidden: what callers start from. std::invalid_argument where query and key do not fit.
ScoreProblem scaled_dot_product(const TensorView& query, const TensorView& key);

// A query row as the products take it, turned to its position and for dot products times the scale; `padded` floats.
void load_query(const ScoreProblem& problem, std::int64_t batch, std::int64_t head, std::int64_t row, float* floats,
                std::int64_t padded);

}  // namespace rattention
