// The threads of OpenMP as helpers. Where another library of the process uses them, as PyTorch does, they wait busily
// for some milliseconds after each of its regions: threads of our own would share the processors with them.
#pragma once

#include "core/thread_pool.h"

namespace rattention {

// From now on calls of the main thread are helped by OpenMP's threads. They are not in children made by fork(), where
// those threads do not live on.
void share_openmp_team() noexcept;

// Calls job.run() on this thread and `helpers` of OpenMP's; false, and nothing is done, where the team is not shared,
// the thread is another than the main one, or threads that the team lacks cannot be started: OpenMP would end the
// process.
[[nodiscard]] bool run_with_openmp_team(Job& job, int helpers) noexcept;

}  // namespace rattention
