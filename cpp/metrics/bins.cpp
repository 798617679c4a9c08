#include "metrics/bins.h"

#include <algorithm>
#include <utility>

namespace rattention {
namespace {

std::vector<std::int64_t> even_edges(KeySpan range, std::int64_t most) {
  const std::int64_t bins = std::min(most, range.size());
  std::vector<std::int64_t> edges;
  for (std::int64_t bin = 0; bin <= bins; ++bin) {
    edges.push_back(range.first + (bins > 0 ? bin * range.size() / bins : 0));
  }
  return edges;
}

}  // namespace

Bins::Bins(std::vector<std::int64_t> edges) : edges_(std::move(edges)) {}

Bins::Bins(KeySpan range, std::int64_t most) : Bins(even_edges(range, most)) {}

std::int64_t Bins::of(std::int64_t index) const {
  return std::upper_bound(edges_.begin(), edges_.end(), index) - edges_.begin() - 1;
}

}  // namespace rattention
