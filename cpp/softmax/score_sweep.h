// The sweep of a task whose visitor wants scores in float32, and no values.
#pragma once

#include "softmax/float_operands.h"
#include "softmax/sweep.h"

namespace rattention {

template <typename Visitor>
void sweep_scores(const ScoreProblem& problem, const Task& task, Visitor& visit) {
  Scratch& scratch = thread_scratch();
  scratch.reset(FloatOperands::floats(problem, nullptr, task.rows) + ScoreTile::floats(problem, task.rows));
  FloatOperands operands(problem, nullptr, task.rows, scratch);
  ScoreTile tile(problem, operands, task.rows, scratch);
  sweep(task, tile, visit);
}

}  // namespace rattention
