#include "core/threads.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <stdexcept>
#include <thread>

#include "core/openmp.h"
#include "core/openmp_team.h"
#include "core/processor.h"
#include "core/scratch.h"
#include "core/task_times.h"
#include "core/thread_pool.h"

namespace rattention {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int> requested_threads{0};

// Denormals cost a hundred cycles each and carry nothing that float32 results could show.
class Denormals {
 public:
  explicit Denormals(bool as_zero) : previous_(float_mode()) {
    set_float_mode(as_zero ? previous_ | kDenormalsAreZero : previous_ & ~kDenormalsAreZero);
  }
  ~Denormals() { set_float_mode(previous_); }
  Denormals(const Denormals&) = delete;
  Denormals& operator=(const Denormals&) = delete;

 private:
  FloatMode previous_;
};

// Ends a task because its call has failed; what made it fail is what the caller hears of.
struct GaveUp {};

// A call of parallel_for.
class Work final : public Job {
 public:
  Work(std::int64_t count, const std::function<void(std::int64_t)>& task, const Work* outer)
      : count_(count), task_(task), outer_(outer) {}

  void run() noexcept override;

  void fail(std::exception_ptr error) {
    if (!has_error_.exchange(true)) error_ = std::move(error);
    failed_ = true;
  }
  // Of this call or one that it is part of.
  bool failed() const { return failed_.load(std::memory_order_relaxed) || (outer_ != nullptr && outer_->failed()); }
  // After all threads have stopped.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
    if (failed()) throw GaveUp{};
  }

 private:
  const std::int64_t count_;
  const std::function<void(std::int64_t)>& task_;
  const Work* const outer_;  // the call that this one is made in, on the same thread
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::atomic<bool> has_error_{false};
  std::exception_ptr error_;
};

// What a thread is doing.
thread_local const Work* current_work = nullptr;
thread_local bool asking = false;
thread_local bool alone = false;
thread_local Interrupts::Hook interrupt_hook = nullptr;
thread_local Clock::time_point next_question{};

template <typename T>
class Set {
 public:
  Set(T& variable, T value) : variable_(variable), before_(variable) { variable = value; }
  ~Set() { variable_ = before_; }
  Set(const Set&) = delete;
  Set& operator=(const Set&) = delete;

 private:
  T& variable_;
  T before_;
};

constexpr std::chrono::milliseconds kQuestions{50};
// Asking can take long, where the hook waits for a lock: that may cost a twentieth of the time. A system that stops for
// seconds meanwhile must not make Ctrl-C wait for minutes, though.
constexpr int kShareOfQuestions = 20;
constexpr std::chrono::milliseconds kFewestQuestions{500};

void ask() {
  if (interrupt_hook == nullptr || asking) return;
  const Clock::time_point now = Clock::now();
  if (now < next_question) return;
  {
    const Set<bool> guard(asking, true);
    const Denormals usual(false);
    interrupt_hook();
  }
  const Clock::time_point answered = Clock::now();
  next_question =
      answered + std::clamp<Clock::duration>(kShareOfQuestions * (answered - now), kQuestions, kFewestQuestions);
}

void Work::run() noexcept {
  const Denormals denormals(true);
  const Set<const Work*> current(current_work, this);
  while (!failed()) {
    try {
      ask();
      const std::int64_t i = next_.fetch_add(1, std::memory_order_relaxed);  // orders nothing between tasks
      if (i >= count_) return;
      task_(i);
    } catch (const GaveUp&) {
      return;
    } catch (...) {
      fail(std::current_exception());
    }
  }
}

void run_loop(std::int64_t count, const std::function<void(std::int64_t)>& task);

// For hooks that compute: the task that asked holds this thread's working memory and registers.
void run_elsewhere(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  std::exception_ptr error;
  std::thread([&] {
    try {
      run_loop(count, task);
    } catch (...) {
      error = std::current_exception();
    }
  }).join();
  if (error) std::rethrow_exception(error);
}

void run_loop(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (count <= 0) return;
  make_thread_data();  // while there is memory for it: a call that finds none throws
  if (asking) return run_elsewhere(count, task);
  Work work(count, task, current_work);
  const int threads = static_cast<int>(std::min<std::int64_t>(get_num_threads(), count));
  if (threads == 1 || current_work != nullptr || in_openmp_region()) {
    work.run();
  } else if (!run_with_openmp_team(work, threads - 1) && !run_with_helpers(work, threads - 1)) {
    throw std::runtime_error("the process was forked during this call, which only the parent can finish");
  }
  work.rethrow();
}

}  // namespace

void set_num_threads(int n) {
  requested_threads = n;
  if (n > 0) limit_helpers(n - 1);
}

int get_num_threads() {
  if (alone) return 1;
  const int requested = requested_threads;
  return requested > 0 ? requested : std::max(1, openmp_threads());
}

void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& task) {
  if (task_times_are_recorded() && current_work == nullptr) return run_loop(count, timed(count, task));
  run_loop(count, task);
}

void stop_if_asked() {
  if (current_work != nullptr && current_work->failed()) throw GaveUp{};
  ask();
}

Interrupts::Interrupts(Hook hook) : previous_(interrupt_hook), previous_time_(next_question) {
  interrupt_hook = hook;
  next_question = Clock::now() + kQuestions;
}

Interrupts::~Interrupts() {
  interrupt_hook = previous_;
  next_question = previous_time_;
}

OneThread::OneThread(bool wanted) : previous_(alone) { alone = alone || wanted; }
OneThread::~OneThread() { alone = previous_; }

OneLibraryThread::OneLibraryThread() : previous_(openmp_threads()) { set_openmp_threads(1); }
OneLibraryThread::~OneLibraryThread() { set_openmp_threads(previous_); }

}  // namespace rattention
