// How long the tasks of parallel loops take: from these, how a call would scale to more processors than there are.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace rattention {

// Seconds of processor time by loop and task.
using TaskTimes = std::vector<std::vector<double>>;

// Loops that start from now on are recorded, those within a task as part of it. For one calling thread.
void record_task_times();
// Ends that and hands out what was recorded.
TaskTimes recorded_task_times();

bool task_times_are_recorded();
// A task of a loop that is recorded, which notes its time.
std::function<void(std::int64_t)> timed(std::int64_t count, const std::function<void(std::int64_t)>& task);

}  // namespace rattention
