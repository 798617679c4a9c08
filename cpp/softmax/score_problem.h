// What the score loop is asked for: queries, keys, how they are scored and which of them see each other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "core/tensor.h"
#include "kernels/rotary.h"
#include "softmax/masks.h"

namespace rattention {

constexpr float kLog2E = 1.44269504088896340736F;

// Rows of scores that are hot in the first-level cache while a panel of keys is.
constexpr std::int64_t kBlockRows = 48;
// Keys per tile: long enough that per-row, per-tile work (maximum, rescaling) is small, short enough for keys, values,
// queries and outputs of a task to share the second-level cache.
constexpr std::int64_t kTileKeys = 1024;
// Query rows per key/value head for which moving keys and values, to pack or to align them, is most of the work.
constexpr std::int64_t kFewRows = 8;

// The score rule G m_i m_j / (|q_i - k_j|^exponent + eps), in place of the scaled dot product.
struct Gravity {
  TensorView query_mass;            // [batch, heads, query_length, 1]
  TensorView key_mass;              // [batch, heads or kv_heads, key_length, 1]
  const float* strength = nullptr;  // G, one per query head
  float eps = 0.0F;
  const float* exponent = nullptr;  // > 0, one per query head; all are 2 where there is none

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
  bool discount_per_query = false;      // one per query, [batch, heads, query_length], in place of that
  // Query rows to score, nullptr for all. Row r of the loop is query row rows[r].
  const std::int64_t* rows = nullptr;
  std::int64_t row_count = 0;

  std::int64_t group() const { return query.heads() / key.heads(); }
  // Depends on the problem alone, not on its tasks, and so do results.
  bool few_rows() const { return row_count * group() <= kFewRows; }
  std::int64_t query_row(std::int64_t r) const { return rows != nullptr ? rows[r] : r; }
  float log_discount_of(std::int64_t batch, std::int64_t head, std::int64_t query_row) const {
    return log_discount[discount_per_query ? (batch * query.heads() + head) * query.length() + query_row : head];
  }
  // Distances are counted from the position within the row's span that is nearest to its own: what lies between is the
  // same for all its keys, and far from them it would take the digits in which they differ.
  std::int64_t distance_origin(std::int64_t query_row) const {
    const KeySpan keys = masks.span(query_row);
    return std::clamp(masks.position(query_row), keys.first, std::max(keys.first, keys.last - 1));
  }
  // The distance from the row's position to that origin.
  double distance_left_out(std::int64_t query_row) const {
    return std::abs(static_cast<double>(masks.position(query_row) - distance_origin(query_row)));
  }
  // What the row's scores, and with them its lse, lack of their discount: natural units.
  double discount_left_out(std::int64_t batch, std::int64_t head, std::int64_t query_row) const {
    if (log_discount == nullptr) return 0;
    return log_discount_of(batch, head, query_row) * distance_left_out(query_row);
  }
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

}  // namespace rattention
