// A range of rows, keys or distances cut into contiguous bins.
#pragma once

#include <cstdint>
#include <vector>

#include "core/keys.h"

namespace rattention {

class Bins {
 public:
  // Bin b is [edges[b], edges[b + 1]); edges increase.
  explicit Bins(std::vector<std::int64_t> edges);
  // As many bins as `most` >= 1 allows, none of them empty; their sizes differ by at most one.
  Bins(KeySpan range, std::int64_t most);

  KeySpan range() const { return {edges_.front(), edges_.back()}; }
  std::int64_t count() const { return static_cast<std::int64_t>(edges_.size()) - 1; }
  std::int64_t first(std::int64_t bin) const { return edges_[static_cast<std::size_t>(bin)]; }
  std::int64_t last(std::int64_t bin) const { return first(bin + 1); }
  KeySpan bin(std::int64_t bin) const { return {first(bin), last(bin)}; }
  // The bin that holds an index of the range: a search, for the first of a run of indices.
  std::int64_t of(std::int64_t index) const;

 private:
  std::vector<std::int64_t> edges_;
};

}  // namespace rattention
