// The only threading code: OpenMP, made safe for exceptions and for fork().
#pragma once

#include <cstdint>
#include <functional>

namespace rattention {

// Threads used by the next call. 0 restores the default: what OpenMP would take (OMP_NUM_THREADS,
// torch.set_num_threads). In a child made by fork() the answer is always 1, because the OpenMP pool of the parent does
// not live on there.
void set_num_threads(int n);
int get_num_threads();

// Runs task(0) ... task(count - 1), each exactly once, on up to get_num_threads() threads. Tasks are handed out in
// order, as threads become free, so results may only depend on the task. Denormals count as zero inside. The first
// exception (by time) is rethrown here after all threads have stopped.
void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& task);

// While it lives, a library's own parallel regions entered from this thread stay on this thread: work is divided by
// parallel_for alone, so that results cannot depend on the number of threads.
class OneLibraryThread {
 public:
  OneLibraryThread();
  ~OneLibraryThread();
  OneLibraryThread(const OneLibraryThread&) = delete;
  OneLibraryThread& operator=(const OneLibraryThread&) = delete;

 private:
  int previous_;
};

}  // namespace rattention
