// The end of a softmax: from weights relative to a row's largest score to output and lse.
#pragma once

#include <cstdint>

#include "softmax/score_problem.h"
#include "softmax/softmax_attention.h"

namespace rattention {

// Of one row over some keys, or all: scores are relative to `top` and lack `left_out`, see discount_left_out().
struct RowTotals {
  double top = 0;
  double left_out = 0;
  float total = 0;    // sum of weights e^(score - top)
  bool sees = false;  // a key, whatever its score
};

struct RowPlace {
  std::int64_t batch;
  std::int64_t head;
  std::int64_t row;
};

// What the row adds up to, and which part of all weight its keys have beside the sink.
struct RowShare {
  float total;
  float kept;
};

// Divides weights times values, whole vectors of them, by their sum, and writes out what is wanted. `in_place`: they
// lie where the output is wanted.
RowShare finish_row(const ScoreProblem& problem, const SoftmaxForward& want, RowPlace at, const RowTotals& totals,
                    float* output, bool in_place);

}  // namespace rattention
