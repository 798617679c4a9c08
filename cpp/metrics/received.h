// Attention received per key: the second sweep, over columns, once the softmax's denominators are known.
#pragma once

#include "mechanisms/score_tiles.h"

namespace rattention {

// received[b, h, j] = mean over the query rows that may see key j of their weight on it; 0 where no row may. Contiguous
// [batch, heads, key_length]; lse is natural, [batch, heads, row_count].
void attention_received(const ScoreProblem& problem, const float* lse, float* received);

}  // namespace rattention
