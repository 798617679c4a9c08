// The attention map as a picture of any size: mean-pooled while its tiles stream.
#pragma once

#include <cstdint>
#include <vector>

#include "softmax/score_problem.h"

namespace rattention {

// A range cut into `count` contiguous bins whose sizes differ by at most one.
class Bins {
 public:
  // As many bins as `most` >= 1 allows, none of them empty.
  Bins(KeySpan range, std::int64_t most);

  KeySpan range() const { return range_; }
  std::int64_t count() const { return static_cast<std::int64_t>(edges_.size()) - 1; }
  std::int64_t first(std::int64_t bin) const { return edges_[static_cast<std::size_t>(bin)]; }
  std::int64_t last(std::int64_t bin) const { return first(bin + 1); }
  // The bin that holds an index of the range.
  std::int64_t of(std::int64_t index) const { return ((index - range_.first + 1) * count() - 1) / range_.size(); }

 private:
  KeySpan range_;
  std::vector<std::int64_t> edges_;
};

// map[b, h, r, c] = mean weight over all cells of the bins r of rows and c of keys, 0 for those that are hidden.
// Contiguous [batch, heads, rows.count(), keys.count()]. The range of `rows` counts the rows of the loop and is all of
// them, that of `keys` may be any part: weights are those of the softmax over all keys. Beyond the map, memory is
// O(row_count).
void pooled_map(const ScoreProblem& problem, const Bins& rows, const Bins& keys, float* map);

}  // namespace rattention
