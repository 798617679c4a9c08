// The log of every row's denominator, and the sweeps over weights that are made again from it.
#pragma once

#include <vector>

#include "softmax/score_sweep.h"
#include "softmax/softmax_attention.h"

namespace rattention {

// Rows per part of a pass whose parts must not depend on the threads, in blocks.
constexpr std::int64_t kPartBlocks = 16;

// As a caller knows it from a forward pass, or computed task by task.
class RowLse {
 public:
  // `given` is natural, [batch, heads, row_count], or nullptr.
  RowLse(const ScoreProblem& problem, const double* given);
  RowLse(const RowLse&) = delete;
  RowLse& operator=(const RowLse&) = delete;

  // Those of the task's rows are known from now on. Threads may ask for different tasks at a time.
  void prepare(const Task& task);
  // Makes weights of the scores of row r of the block; returns its keys, none where it has no weight on any.
  KeySpan to_weights(ScoreTile& tile, std::int64_t batch, const QueryBlock& block, std::int64_t r) const;

 private:
  const ScoreProblem& problem_;
  std::vector<double> own_;
  const double* lse_;
};

// The task with those keys alone that keys_of(block) leaves of each block's own; blocks without any are left out.
template <typename KeysOfBlock>
Task narrowed(const Task& task, KeysOfBlock keys_of) {
  Task part = task;
  part.keys = {};
  part.blocks.clear();
  for (QueryBlock block : task.blocks) {
    block.keys = block.keys.intersect(keys_of(block));
    if (block.keys.empty()) continue;
    part.keys = part.keys.join(block.keys);
    part.blocks.push_back(block);
  }
  return part;
}

}  // namespace rattention
