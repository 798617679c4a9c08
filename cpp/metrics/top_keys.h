// The keys that every row weighs most, found while the tiles of the map stream.
#pragma once

#include <cstdint>

#include "softmax/score_problem.h"

namespace rattention {

// Contiguous [batch, heads, row_count, count] each, by falling weight, equal weights by key; NaN counts as the largest.
// Where a row sees fewer keys, key -1 and weight 0.
struct TopKeys {
  std::int64_t count;
  std::int64_t* keys;
  float* weights;
};

// `lse` as in pooled_map.h. Beyond the result, memory is O(row_count).
void top_keys(const ScoreProblem& problem, const double* lse, TopKeys top);

}  // namespace rattention
