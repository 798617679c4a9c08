// How far rows look: their weights summed by distance.
#pragma once

#include "metrics/bins.h"
#include "softmax/score_problem.h"

namespace rattention {

// mass[b, h, i] = mean, over the rows that may see some key, of their weights on keys whose distance |row - key| lies
// in bin i; 0 where no row may. Contiguous [batch, heads, distances.count()]; `lse` as in pooled_map.h. Keys beyond the
// last edge are not scored. Beyond the result, memory is O(row_count) and a few times the result.
void distance_mass(const ScoreProblem& problem, const Bins& distances, const double* lse, float* mass);

}  // namespace rattention
