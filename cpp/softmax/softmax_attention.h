// Softmax attention: exact, in tiles, with an online softmax.
#pragma once

#include "core/tensor.h"
#include "softmax/row_observer.h"
#include "softmax/task_plan.h"

namespace rattention {

struct RowTotals;

// Rows that have seen a part of their keys: sums of weights times values, [rows][value_dim rounded up to whole
// vectors], and what their weights are relative to. Rows are counted over the batch and its heads.
struct PartialRows {
  float* outputs;
  RowTotals* totals;
};

// output[b, h, i] = sum_j softmax_j(score_ij) value[b, h / group, j]; lse in natural units, contiguous [batch, heads,
// row_count], -inf for a row that sees no key. It is float64 because weights are made again from it: rounded to
// float32, an lse of some hundreds would miss them by a relative 1e-5. `value` and `output` go together and may be
// absent (only statistics wanted); so may lse and the observer.
struct SoftmaxForward {
  const TensorView* value = nullptr;
  const OutputView* output = nullptr;
  // What rounding took from an output of 16 bits, in the same form: the backward pass subtracts numbers that are nearly
  // equal, and needs it. Goes with such an output, or is absent.
  const OutputView* output_rest = nullptr;
  double* lse = nullptr;
  MakeRowObserver observer;
  const PartialRows* partial = nullptr;  // in place of output, lse and observer
};

void softmax_forward(const ScoreProblem& problem, const SoftmaxForward& want);

// The forward pass of one task, for mechanisms that go on with its rows while they are in cache: returns the finished
// rows [task.rows][value_dim rounded up to whole vectors], in the calling thread's scratch until its next use. Nothing
// but the rows if no output is asked for.
float* softmax_task(const ScoreProblem& problem, const SoftmaxForward& want, const Task& task);

// Visits weights p = e^(score - lse) tile by tile once lse (natural, [batch, heads, row_count]) is known.
// weights[b, h, r, j], contiguous [batch, heads, row_count, key_length], must be zero on entry.
void softmax_rows(const ScoreProblem& problem, const double* lse, float* weights);

}  // namespace rattention
