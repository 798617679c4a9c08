#include "core/threads.h"

#include <omp.h>
#include <pthread.h>
#include <xmmintrin.h>

#include <algorithm>
#include <atomic>
#include <exception>

#include "core/scratch.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace rattention {
namespace {

std::atomic<int> requested_threads{0};
std::atomic<bool> in_forked_child{false};

// The child of a fork() has one thread, whatever the parent's OpenMP pool believes; a parallel region there would wait
// for threads that do not exist. omp_set_num_threads covers oneDNN's regions as well.
void after_fork_in_child() {
  in_forked_child = true;
  omp_set_num_threads(1);
}

const int fork_handler_registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);

// Denormals cost a hundred cycles each and carry nothing that float32 results could show.
class DenormalsAsZero {
 public:
  DenormalsAsZero() : previous_(_mm_getcsr()) { _mm_setcsr(previous_ | kFlushToZero | kDenormalsAreZero); }
  ~DenormalsAsZero() { _mm_setcsr(previous_); }
  DenormalsAsZero(const DenormalsAsZero&) = delete;
  DenormalsAsZero& operator=(const DenormalsAsZero&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000U;
  static constexpr unsigned kDenormalsAreZero = 0x0040U;
  unsigned previous_;
};

// One worker's share of a parallel_for.
struct Work {
  std::int64_t count;
  const std::function<void(std::int64_t)>& task;
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error{};

  void run() noexcept {
    const DenormalsAsZero guard;
    while (!failed) {
      const std::int64_t i = next.fetch_add(1, std::memory_order_relaxed);  // orders nothing between tasks
      if (i >= count) return;
      try {
        task(i);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    }
  }
};

// libgomp is not built for the thread sanitizer, which therefore must be told that what comes before a parallel region
// happens before all of it, and all of it before what follows.
void release_to_threads([[maybe_unused]] void* at) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(at);
#endif
}
void acquire_from_threads([[maybe_unused]] void* at) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(at);
#endif
}

// Not sanitized itself: OpenMP hands the reference over before the tasks' threads can acquire anything.
__attribute__((no_sanitize("thread"))) void run_in_parallel(Work& work, int threads) {
  release_to_threads(&work.count);
#pragma omp parallel num_threads(threads)
  {
    acquire_from_threads(&work.count);
    // The loader makes a thread's local data when they are first touched, and ends the process where there is no memory
    // for them: so they are made with the thread, whether or not it finds a task.
    thread_scratch();
    work.run();
    release_to_threads(&work.error);
  }
  acquire_from_threads(&work.error);
}

}  // namespace

void set_num_threads(int n) { requested_threads = n; }

int get_num_threads() {
  (void)fork_handler_registered;
  if (in_forked_child) return 1;
  const int requested = requested_threads;
  return requested > 0 ? requested : std::max(1, omp_get_max_threads());
}

void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (count <= 0) return;
  Work work{count, task};
  const int threads = static_cast<int>(std::min<std::int64_t>(get_num_threads(), count));
  if (threads == 1 || omp_in_parallel()) {
    work.run();
  } else {
    run_in_parallel(work, threads);
  }
  if (work.error) std::rethrow_exception(work.error);
}

OneLibraryThread::OneLibraryThread() : previous_(omp_get_max_threads()) { omp_set_num_threads(1); }
OneLibraryThread::~OneLibraryThread() { omp_set_num_threads(previous_); }

}  // namespace rattention
