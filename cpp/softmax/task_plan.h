// Cuts a problem into tasks: a few blocks of query rows of the heads that read one key/value head.
#pragma once

#include <cstdint>
#include <vector>

#include "softmax/score_problem.h"

namespace rattention {

// Consecutive rows [first, first + rows) of one query head.
struct QueryBlock {
  std::int64_t head = 0;
  std::int64_t first = 0;
  std::int64_t rows = 0;
  std::int64_t slot = 0;   // where the block's rows lie in the task's buffers
  std::int64_t index = 0;  // among the task's blocks
  KeySpan keys;            // all that its rows can see
};

// Blocks per task, at most: all rows of a head of 4608 tokens, so that its keys are packed once. Fewer balance better
// between threads, and there are fewer where tasks would not go round.
constexpr std::int64_t kTaskBlocks = 96;

struct Task {
  std::int64_t part = 0;      // in the order of the plan
  std::int64_t kv_index = 0;  // key/value head, counted over the batch
  std::int64_t batch = 0;
  std::int64_t kv_head = 0;
  std::vector<QueryBlock> blocks;
  KeySpan keys;
  std::int64_t rows = 0;

  void add(QueryBlock block);
};

// The rows [rows.first, rows.last) of all query heads that read one key/value head, as a task of its own.
Task row_task(const ScoreProblem& problem, std::int64_t batch, std::int64_t kv_head, KeySpan rows);

// The tasks of a problem: parts of the query rows of each key/value head.
class TaskPlan {
 public:
  // As many as the threads need, from the last rows to the first: under causality the last are the longest and should
  // start first. For passes whose results do not depend on the parts.
  explicit TaskPlan(const ScoreProblem& problem);
  // Parts of a fixed number of blocks, from the first rows to the last.
  TaskPlan(const ScoreProblem& problem, std::int64_t blocks_per_task);

  std::int64_t count() const { return heads_ * parts_; }
  std::int64_t parts() const { return parts_; }
  std::int64_t heads() const { return heads_; }
  Task task(std::int64_t index) const;

 private:
  QueryBlock block(std::int64_t batch, std::int64_t kv_head, std::int64_t index) const;

  const ScoreProblem& problem_;
  std::int64_t heads_ = 0;   // key/value heads of the whole batch
  std::int64_t blocks_ = 0;  // per key/value head
  std::int64_t parts_ = 0;   // tasks per key/value head
  bool last_first_ = false;
};

}  // namespace rattention
