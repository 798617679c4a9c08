#include "softmax/task_plan.h"

#include <algorithm>

#include "core/threads.h"

namespace rattention {
namespace {

// Tasks per thread, so that threads which take the next as they become free end at about the same time. Every task
// packs its keys for itself.
constexpr std::int64_t kTasksPerThread = 4;

QueryBlock query_block(const ScoreProblem& problem, std::int64_t batch, std::int64_t head, std::int64_t first,
                       std::int64_t last) {
  QueryBlock block;
  block.head = head;
  block.first = first;
  block.rows = last - first;
  for (std::int64_t r = first; r < last; ++r) {
    block.keys = block.keys.join(problem.masks.span(batch, problem.query_row(r)));
  }
  return block;
}

}  // namespace

void Task::add(QueryBlock block) {
  block.slot = rows;
  block.index = static_cast<std::int64_t>(blocks.size());
  rows += block.rows;
  keys = keys.join(block.keys);
  blocks.push_back(block);
}

TaskPlan::TaskPlan(const ScoreProblem& problem) : TaskPlan(problem, 0) {
  const std::int64_t even = ceil_div(heads_ * blocks_, kTasksPerThread * get_num_threads());
  parts_ = ceil_div(blocks_, std::clamp<std::int64_t>(even, 1, kTaskBlocks));
  last_first_ = true;
}

TaskPlan::TaskPlan(const ScoreProblem& problem, std::int64_t blocks_per_task) : problem_(problem) {
  if (problem.row_count == 0 || problem.query.heads() == 0 || problem.query.batch() == 0) return;
  heads_ = problem.key.batch() * problem.key.heads();
  blocks_ = problem.group() * problem.row_blocks();
  if (blocks_per_task > 0) parts_ = ceil_div(blocks_, blocks_per_task);
}

QueryBlock TaskPlan::block(std::int64_t batch, std::int64_t kv_head, std::int64_t index) const {
  const std::int64_t per_head = problem_.row_blocks();
  const std::int64_t first = index % per_head * kBlockRows;
  return query_block(problem_, batch, kv_head * problem_.group() + index / per_head, first,
                     std::min(first + kBlockRows, problem_.row_count));
}

Task row_task(const ScoreProblem& problem, std::int64_t batch, std::int64_t kv_head, KeySpan rows) {
  Task task;
  task.batch = batch;
  task.kv_head = kv_head;
  for (std::int64_t head = kv_head * problem.group(); head < (kv_head + 1) * problem.group(); ++head) {
    for (std::int64_t first = rows.first; first < rows.last; first += kBlockRows) {
      task.add(query_block(problem, batch, head, first, std::min(first + kBlockRows, rows.last)));
    }
  }
  return task;
}

Task TaskPlan::task(std::int64_t index) const {
  Task task;
  task.part = index / heads_;
  task.kv_index = index % heads_;
  const std::int64_t part = last_first_ ? parts_ - 1 - task.part : task.part;
  task.batch = index % heads_ / problem_.key.heads();
  task.kv_head = index % heads_ % problem_.key.heads();
  for (std::int64_t i = part * blocks_ / parts_; i < (part + 1) * blocks_ / parts_; ++i) {
    task.add(block(task.batch, task.kv_head, i));
  }
  return task;
}

}  // namespace rattention
