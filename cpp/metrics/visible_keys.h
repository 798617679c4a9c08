// Counting the keys a row may see, by distance, without a map.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "softmax/masks.h"

namespace rattention {

// The visible keys of one row: those of a sorted list (or all) that lie in a span.
class VisibleKeys {
 public:
  VisibleKeys(KeySpan span, const std::vector<std::int64_t>* listed) : span_(span), listed_(listed) {}

  std::int64_t count(KeySpan keys) const;
  std::int64_t count() const { return count(span_); }
  bool contains(std::int64_t key) const { return count({key, key + 1}) == 1; }

 private:
  KeySpan span_;
  const std::vector<std::int64_t>* listed_;
};

// The visible keys of any row of one batch entry. Memory is O(key_length), or what the current row needs with a dense
// mask.
class VisibleKeysOfBatch {
 public:
  VisibleKeysOfBatch(const Masks& masks, std::int64_t batch);

  // The result lives until the next call.
  VisibleKeys row(std::int64_t head, std::int64_t query_row);

 private:
  const Masks& masks_;
  std::int64_t batch_;
  std::vector<std::int64_t> unpadded_;
  std::unordered_map<std::int64_t, std::vector<std::int64_t>> by_segment_;
  std::vector<std::int64_t> of_row_;
  std::vector<std::int32_t> flags_;
};

// The nearest and the farthest quarter of a row's context (its visible keys but its own position), each at least one
// key, ties going to the lower index. Both are ranges of indices: [near.first, near.last) without the position itself,
// and everything outside [close.first, close.last).
struct ContextQuarters {
  std::int64_t size = 0;  // keys in each quarter, 0 where the context has fewer than two keys
  KeySpan near;
  KeySpan close;
};

ContextQuarters context_quarters(const VisibleKeys& visible, std::int64_t position, std::int64_t key_length);

}  // namespace rattention
