// The attention map in bins of rows and keys, summed while its tiles stream.
#pragma once

#include "metrics/bins.h"
#include "softmax/score_problem.h"

namespace rattention {

// mass[b, h, r, c] = sum of the weights of all cells of the bins r of rows and c of keys. Contiguous [batch, heads,
// rows.count(), keys.count()]. The range of `rows` counts the rows of the loop and is all of them, that of `keys` may
// be any part: weights are those of the softmax over all keys. `lse` is that of the forward pass, natural, [batch,
// heads, row_count]; nullptr computes it, in a sweep over all keys. Beyond the result, memory is O(row_count) and a row
// of it for every 768 rows.
void segment_mass(const ScoreProblem& problem, const Bins& rows, const Bins& keys, const double* lse, float* mass);

// The same as means over all cells of a bin, 0 for those that are hidden: a picture of any size.
void pooled_map(const ScoreProblem& problem, const Bins& rows, const Bins& keys, const double* lse, float* map);

}  // namespace rattention
