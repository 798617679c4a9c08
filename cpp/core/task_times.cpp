#include "core/task_times.h"

#include <ctime>
#include <memory>
#include <utility>

namespace rattention {
namespace {

// Of loops that may still run when recording ends.
using Loop = std::shared_ptr<std::vector<double>>;

// Of a thread's own calls: other threads may record theirs at the same time.
thread_local bool recording = false;
thread_local std::vector<Loop> loops;

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

void record_task_times() {
  loops.clear();
  recording = true;
}

TaskTimes recorded_task_times() {
  recording = false;
  TaskTimes times;
  for (const Loop& loop : loops) times.push_back(*loop);
  loops.clear();
  return times;
}

bool task_times_are_recorded() { return recording; }

std::function<void(std::int64_t)> timed(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  const Loop loop = std::make_shared<std::vector<double>>(static_cast<std::size_t>(count));
  loops.push_back(loop);
  return [loop, task](std::int64_t i) {
    const double begin = thread_seconds();
    task(i);
    (*loop)[static_cast<std::size_t>(i)] = thread_seconds() - begin;
  };
}

}  // namespace rattention
