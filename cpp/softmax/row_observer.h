// What rides on the forward pass: told of every row of weights while it is in cache, and never of more.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/tile_kernels.h"
#include "softmax/task_plan.h"

namespace rattention {

// Weights of one row over one tile, relative to the row's largest score so far: w_j = e^(s_j - top).
struct RowWeights {
  KeySpan keys;
  float* weights;        // one per key of `keys`, 0 where hidden; may be changed and must be restored
  std::int64_t visible;  // how many of the keys are not hidden
  RowSums sums;          // of these weights; sums.score is sum w (s - top)
  float previous;        // sum of the weights of earlier tiles, before rescaling
  float rescale;         // e^(earlier top - top): what weights of earlier tiles are to be multiplied with
  float shift_change;    // earlier top - top, 0 in the first tile
  bool new_top;          // the largest score so far lies in this tile, where its weight is exactly 1
};

// Of one task; rows are named by their slot within it.
class RowObserver {
 public:
  RowObserver() = default;
  RowObserver(const RowObserver&) = delete;
  RowObserver& operator=(const RowObserver&) = delete;
  virtual ~RowObserver() = default;

  virtual void add(std::int64_t slot, const RowWeights& row) = 0;
  // All tiles seen; `denominator` is the sum of weights, `kept` their share beside the sink: 1 without one.
  virtual void finish(std::int64_t slot, float denominator, float kept) = 0;
};

// Called once per task, by several threads at once.
using MakeRowObserver = std::function<std::unique_ptr<RowObserver>(const Task&)>;

}  // namespace rattention
