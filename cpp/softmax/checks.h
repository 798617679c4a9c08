// Checks of shapes, at the door of the core. Every failure is std::invalid_argument that names the argument, what came
// and what is allowed.
#pragma once

#include "core/tensor.h"
#include "softmax/score_problem.h"

namespace rattention {

// Query [B, H, Lq, D] and key [B, Hkv, Lk, D] with D > 0 and Hkv a divisor of H.
void check_query_and_key(const TensorView& query, const TensorView& key);
// Where states go along both.
void check_equal_lengths(const TensorView& query, const TensorView& key);
// Value [B, Hkv, Lk, Dv].
void check_value(const TensorView& key, const TensorView& value);
// Every query position must have a segment id where segments are given.
void check_positions(const ScoreProblem& problem);

}  // namespace rattention
