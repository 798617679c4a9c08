#include "core/thread_pool.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "core/openmp.h"
#include "core/processor.h"
#include "core/scratch.h"

namespace rattention {
namespace {

using Clock = std::chrono::steady_clock;
using Lock = std::unique_lock<std::mutex>;

// How long a thread looks for work, or for the end of it, before it sleeps. Waking one takes about as long; calls that
// follow each other find it awake.
constexpr std::chrono::microseconds kSpin{200};
// After a thread could not be started; each try costs as much as a short call.
constexpr std::chrono::milliseconds kRetry{100};

template <typename Condition>
bool spin_until(const Condition& condition) {
  const Clock::time_point end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (condition()) return true;
      pause_briefly();
    }
  } while (Clock::now() < end);
  return condition();
}

void name_this_thread() {
#ifdef __APPLE__
  pthread_setname_np("rattention");
#else
  pthread_setname_np(pthread_self(), "rattention");
#endif
}

// Signals are for the program's own threads, but for those that say that this very thread has done wrong.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

constexpr std::size_t kReserve = std::size_t{4} << 20;

struct Unmap {
  void operator()(void* pages) const { munmap(pages, kReserve); }
};
// Pages, not memory of the heap: a thread without an arena of its own gets its first memory from the system alone.
using Reserve = std::unique_ptr<void, Unmap>;

Reserve reserve_pages() {
  void* pages = mmap(nullptr, kReserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return Reserve(pages != MAP_FAILED ? pages : nullptr);
}

std::atomic<int> forks{0};

}  // namespace

class ThreadPool {
 public:
  bool run(Job& job, int helpers) noexcept {
    const int born = forks;
    grow(helpers);  // first: helpers at work would take memory that new ones need to start
    open(job, helpers);
    job.run();
    if (forks != born) return false;  // the lock, too, is as it was in another process
    if (close(job) == 0 || (may_spin_ && spin_until([&job] { return job.helpers_ == 0; }))) return true;
    Lock lock = locked();
    ++waiting_;
    finished_.wait(lock, [&job] { return job.helpers_ == 0; });
    --waiting_;
    return true;
  }

  void limit(int helpers) noexcept {
    const Lock lock = locked();
    limit_ = helpers;
    if (workers_ > limit_) wake_.notify_all();
  }

 private:
  // The lock is held for less time than it takes to sleep and wake.
  Lock locked() {
    Lock lock(mutex_, std::try_to_lock);
    for (int i = 0; i < 100 && !lock.owns_lock() && may_spin_; ++i) {
      pause_briefly();
      lock.try_lock();
    }
    if (!lock.owns_lock()) lock.lock();
    return lock;
  }

  // Appends the job to those with places to fill.
  void open(Job& job, int helpers) {
    const Lock lock = locked();
    job.places_ = helpers;
    Job** last = &first_;
    while (*last != nullptr) last = &(*last)->next_;
    *last = &job;
    places_ += helpers;
    wake_some(places_ - spinning_);
  }

  // Nobody joins any more; returns how many are still at work.
  int close(Job& job) {
    const Lock lock = locked();
    if (job.places_ > 0) {
      places_ -= job.places_;
      Job** link = &first_;
      while (*link != &job) link = &(*link)->next_;
      *link = job.next_;
    }
    return job.helpers_;
  }

  // A place in the job that has waited longest, or nullptr.
  Job* take() {
    Job* job = first_;
    if (job == nullptr) return nullptr;
    --places_;
    ++job->helpers_;
    if (--job->places_ == 0) first_ = job->next_;
    return job;
  }

  // Two at most: those who wake wake others.
  void wake_some(int wanted) {
    for (int i = 0; i < std::min({wanted, sleeping_, 2}); ++i) wake_.notify_one();
  }

  void grow(int helpers) {
    Lock lock = locked();
    limit_ = std::max(limit_, helpers);
    while (workers_ < std::min(helpers, limit_) && Clock::now() >= next_try_) {  // the limit may fall meanwhile
      if (starting_ > 0) {  // one at a time: another start would take the memory that the one before has let go of
        started_.wait(lock, [this] { return starting_ == 0; });
        continue;
      }
      ++workers_;
      ++starting_;
      lock.unlock();
      const bool started = start();
      lock = locked();
      if (started) continue;
      --workers_;
      if (--starting_ == 0) started_.notify_all();
      next_try_ = Clock::now() + kRetry;
    }
    started_.wait(lock, [this] { return starting_ == 0; });
  }

  bool start() {
    try {
      // Memory for the thread's data is reserved here and let go of by the new thread just before it makes them, while
      // those who wait for it leave memory alone.
      Reserve reserve = reserve_pages();
      if (!reserve) return false;
      const SignalsBlocked blocked;
      std::thread([this, reserve = std::move(reserve)]() mutable {
        reserve.reset();
        make_thread_data();
        name_this_thread();
        work();
      }).detach();
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

  void work() {
    Lock lock = locked();
    if (--starting_ == 0) started_.notify_all();
    for (;;) {
      Job* job = take();
      if (job == nullptr) {
        if (!wait(lock)) return;
        continue;
      }
      wake_some(places_);
      lock.unlock();
      job->run();
      lock = locked();
      // With the last helper's leave the job may be gone.
      if (--job->helpers_ == 0 && waiting_ > 0) finished_.notify_all();
    }
  }

  // Until there may be something to do; false where the thread is to end.
  bool wait(Lock& lock) {
    if (workers_ > limit_) {
      --workers_;
      return false;
    }
    if (spinning_ < most_spinning_) {
      ++spinning_;
      lock.unlock();
      const bool found = spin_until([this] { return places_ > 0; });
      lock = locked();
      --spinning_;
      if (found) return true;
    }
    if (places_ > 0) return true;
    ++sleeping_;
    wake_.wait(lock);
    --sleeping_;
    return true;
  }

  const int most_spinning_ = processors() - 1;
  const bool may_spin_ = most_spinning_ > 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  std::condition_variable started_;
  Job* first_ = nullptr;
  std::atomic<int> places_{0};  // of all jobs
  int workers_ = 0;
  int starting_ = 0;
  int limit_ = 0;
  int spinning_ = 0;
  int sleeping_ = 0;
  int waiting_ = 0;  // callers
  Clock::time_point next_try_{};
};

namespace {

// Never destroyed: its threads may outlive static objects. A child made by fork() has none of the threads, and makes a
// pool of its own when it needs one; what the parent's looked like at that moment is of no use there.
std::atomic<ThreadPool*> pool{nullptr};

void after_fork_in_child() {
  pool = nullptr;
  ++forks;
}

const int fork_handler_registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);

ThreadPool* the_pool() {
  (void)fork_handler_registered;
  ThreadPool* known = pool;
  if (known != nullptr) return known;
  auto* made = new (std::nothrow) ThreadPool;
  if (made == nullptr || pool.compare_exchange_strong(known, made)) return made;
  delete made;
  return known;
}

}  // namespace

bool run_with_helpers(Job& job, int helpers) noexcept {
  ThreadPool* threads = the_pool();
  if (threads == nullptr) {
    job.run();
    return true;
  }
  return threads->run(job, helpers);
}

void limit_helpers(int helpers) noexcept {
  ThreadPool* threads = pool;
  if (threads != nullptr) threads->limit(helpers);
}

}  // namespace rattention
