// The only threading code beside the pool that it takes its threads from: loops whose tasks run at the same time, made
// safe for exceptions, fork() and interrupts.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

namespace rattention {

// Threads used by the next call. 0 restores the default: what OpenMP would take (OMP_NUM_THREADS,
// torch.set_num_threads).
void set_num_threads(int n);
int get_num_threads();

// Runs task(0) ... task(count - 1), each exactly once, on this thread and up to get_num_threads() - 1 others. Tasks are
// handed out in order, as threads become free, so results may only depend on the task. Denormals count as zero inside.
// The first exception (by time) is rethrown here after all threads have stopped; there is none of its own, but in a
// child made by fork() during the call. Within a task all runs on the task's thread.
void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& task);

// For tasks that take long, between pieces of their work: throws where the call has failed elsewhere, and hears
// interrupts on the thread that called.
void stop_if_asked();

// While one lives, calls of this thread ask `hook` about every 50 ms whether they should go on; it throws to end them.
// It may call what it likes, even parallel_for. With nullptr they ask nobody until the end of the scope: for changes
// that must not be left half done.
class Interrupts {
 public:
  using Hook = void (*)();
  explicit Interrupts(Hook hook);
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  Hook previous_;
  std::chrono::steady_clock::time_point previous_time_;
};

// While it lives, and if it is `wanted`, calls of this thread take no other: for work that takes less time than another
// thread needs to wake. get_num_threads() is 1 then.
class OneThread {
 public:
  explicit OneThread(bool wanted);
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  bool previous_;
};

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
