#include "metrics/visible_keys.h"

#include <algorithm>

namespace rattention {
namespace {

// Smallest distance d >= 1 with at least `wanted` context keys in [position - d, position + d].
std::int64_t distance_holding(const VisibleKeys& visible, std::int64_t position, std::int64_t wanted,
                              std::int64_t limit) {
  const std::int64_t self = visible.contains(position) ? 1 : 0;
  std::int64_t low = 1;
  std::int64_t high = limit;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (visible.count({position - middle, position + middle + 1}) - self >= wanted) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace

std::int64_t VisibleKeys::count(KeySpan keys) const {
  const KeySpan common = keys.intersect(span_);
  if (common.empty()) return 0;
  if (listed_ == nullptr) return common.size();
  return std::lower_bound(listed_->begin(), listed_->end(), common.last) -
         std::lower_bound(listed_->begin(), listed_->end(), common.first);
}

VisibleKeysOfBatch::VisibleKeysOfBatch(const Masks& masks, std::int64_t batch) : masks_(masks), batch_(batch) {
  if (!masks.has_holes()) return;
  const KeySpan all{0, masks.key_length};
  flags_.assign(static_cast<std::size_t>(masks.key_length), -1);
  if (masks.padding) masks.padded(batch, all, flags_.data());
  for (std::int64_t j = 0; j < masks.key_length; ++j) {
    if (flags_[static_cast<std::size_t>(j)] == 0) continue;
    unpadded_.push_back(j);
    if (masks.segments != nullptr) by_segment_[masks.segments[batch * masks.key_length + j]].push_back(j);
  }
}

VisibleKeys VisibleKeysOfBatch::row(std::int64_t head, std::int64_t query_row) {
  const KeySpan span = masks_.span(batch_, query_row);
  if (!masks_.has_holes()) return {span, nullptr};
  if (masks_.dense) {
    masks_.visible(batch_, head, query_row, {0, masks_.key_length}, flags_.data());
    of_row_.clear();
    for (const std::int64_t j : unpadded_) {
      if (flags_[static_cast<std::size_t>(j)] != 0) of_row_.push_back(j);
    }
    return {span, &of_row_};
  }
  if (masks_.segments == nullptr) return {span, &unpadded_};
  return {span, &by_segment_[masks_.segments[batch_ * masks_.key_length + masks_.position(query_row)]]};
}

ContextQuarters context_quarters(const VisibleKeys& visible, std::int64_t position, std::int64_t key_length) {
  const std::int64_t self = visible.contains(position) ? 1 : 0;
  const std::int64_t context = visible.count() - self;
  if (context < 2) return {};
  ContextQuarters quarters;
  quarters.size = std::max<std::int64_t>(1, context / 4);
  // No key is farther than this, wherever the position lies.
  const std::int64_t limit = std::max(position, key_length - 1 - position) + 1;

  const std::int64_t near = distance_holding(visible, position, quarters.size, limit);
  const bool near_tie = visible.count({position - near, position + near + 1}) - self > quarters.size;
  quarters.near = {position - near, position + near + (near_tie ? 0 : 1)};

  // The farthest quarter takes the lower index of a tie, so what stays close takes the higher.
  const std::int64_t rest = context - quarters.size;
  const std::int64_t far = distance_holding(visible, position, rest, limit);
  const bool far_tie = visible.count({position - far, position + far + 1}) - self > rest;
  quarters.close = {position - far + (far_tie ? 1 : 0), position + far + 1};
  return quarters;
}

}  // namespace rattention
