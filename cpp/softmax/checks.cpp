#include "softmax/checks.h"

#include "core/checks.h"

namespace rattention {

void check_query_and_key(const TensorView& query, const TensorView& key) {
  if (query.dim() == 0) fail("query has head_dim 0 (shape " + to_string(query.shape) + "); it must be at least 1");
  if (query.dim() != key.dim()) {
    fail("key has head_dim " + std::to_string(key.dim()) + ", query has " + std::to_string(query.dim()) +
         "; they must be equal");
  }
  if (query.batch() != key.batch()) {
    fail("key has batch " + std::to_string(key.batch()) + ", query has " + std::to_string(query.batch()) +
         "; they must be equal");
  }
  const bool divides = key.heads() == 0 ? query.heads() == 0 : query.heads() % key.heads() == 0;
  if (!divides) {
    fail("key has " + std::to_string(key.heads()) + " heads, query has " + std::to_string(query.heads()) +
         "; the number of key/value heads must divide the number of query heads");
  }
}

void check_equal_lengths(const TensorView& query, const TensorView& key) {
  if (key.length() == query.length()) return;
  fail("key has length " + std::to_string(key.length()) + ", query has " + std::to_string(query.length()) +
       "; they must be equal");
}

void check_value(const TensorView& key, const TensorView& value) {
  const char* names[] = {"batch", "heads", "length"};
  for (std::size_t i = 0; i < 3; ++i) {
    if (key.shape[i] == value.shape[i]) continue;
    fail(std::string("value has ") + names[i] + " " + std::to_string(value.shape[i]) + ", key has " +
         std::to_string(key.shape[i]) + "; they must be equal");
  }
}

void check_positions(const ScoreProblem& problem) {
  const Masks& masks = problem.masks;
  if ((masks.segments == nullptr && !masks.within) || problem.query.length() == 0) return;
  const std::int64_t first = masks.position(0);
  const std::int64_t last = masks.position(problem.query.length() - 1);
  if (first >= 0 && last < masks.key_length) return;
  fail("segment_ids covers key positions 0 to " + std::to_string(masks.key_length - 1) +
       ", but the query rows have positions " + std::to_string(first) + " to " + std::to_string(last) +
       "; every query row needs a segment id");
}

}  // namespace rattention
