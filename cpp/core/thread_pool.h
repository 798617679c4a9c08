// Threads that help whoever has work for several of them: one pool for all callers of the process.
#pragma once

#include <atomic>

namespace rattention {

// Work that any number of threads may take part in.
class Job {
 public:
  virtual ~Job() = default;
  virtual void run() noexcept = 0;

 private:
  friend class ThreadPool;
  // All under the pool's lock; `helpers_` is also read without it.
  int places_ = 0;
  std::atomic<int> helpers_{0};
  Job* next_ = nullptr;
};

// Calls job.run() on this thread and meanwhile on up to `helpers` others, and returns when all have returned. Where
// threads cannot be started, or others use them, fewer help, or none. False in a child made by fork() during the call:
// what the others had taken is lost there.
[[nodiscard]] bool run_with_helpers(Job& job, int helpers) noexcept;

// Helpers beyond this number leave when they find nothing to do.
void limit_helpers(int helpers) noexcept;

}  // namespace rattention
