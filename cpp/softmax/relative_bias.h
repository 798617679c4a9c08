// A number per head and distance that is added to scores, as T5 has it (arXiv 1910.10683, section 2.1).
#pragma once

#include <cstdint>
#include <vector>

#include "core/keys.h"

namespace rattention {

class RelativeBias {
 public:
  // `table` is contiguous [heads, 2 * reach + 1]: the bias at distances key - position from -reach to reach. Keys
  // farther away have that of the last on their side.
  RelativeBias(const float* table, std::int64_t heads, std::int64_t reach);

  std::int64_t entries() const { return 2 * reach_ + 1; }
  float at(std::int64_t head, std::int64_t distance) const { return *from(head, distance); }
  // Adds the bias of `head` to the scores of at most kTileKeys keys, the first of which is `distance` from the row.
  void add(std::int64_t head, std::int64_t distance, std::int64_t n, float* scores) const;
  // Adds gradients of those scores to the gradients of the head's entries.
  void add_gradient(const float* grad_scores, std::int64_t distance, std::int64_t n, float* entries) const;

 private:
  const float* from(std::int64_t head, std::int64_t distance) const;

  std::int64_t reach_;
  std::int64_t stride_;
  std::vector<float> rows_;  // of each head, with a tile of the outermost entries on either side
};

}  // namespace rattention
