// parallel_for: every task once, exceptions, interrupts, nesting, denormals, callers side by side and fork().
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "core/scratch.h"
#include "core/threads.h"

namespace {

using namespace std::chrono_literals;

using rattention::parallel_for;

void every_task_runs_once() {
  for (const int threads : {1, 2, 3, 8}) {
    rattention::set_num_threads(threads);
    CHECK(rattention::get_num_threads() == threads);
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      parallel_for(count, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
      int wrong = 0;
      for (const auto& n : runs) wrong += n != 1;
      CHECK(wrong == 0);
    }
  }
  parallel_for(-1, [](std::int64_t) { CHECK(false); });
  rattention::set_num_threads(0);
  CHECK(rattention::get_num_threads() >= 1);
}

void the_first_exception_reaches_the_caller() {
  constexpr int kTasks = 50000000;  // more than others get done while a busy machine keeps the thrower waiting
  for (const int threads : {1, 4}) {
    rattention::set_num_threads(threads);
    std::atomic<int> started{0};
    std::string message;
    try {
      parallel_for(kTasks, [&](std::int64_t i) {
        ++started;
        if (i == 3) throw std::out_of_range("task 3");
      });
    } catch (const std::out_of_range& error) {
      message = error.what();
    }
    CHECK(message == "task 3");
    CHECK(started < kTasks);  // the others stop early
    std::atomic<int> after{0};
    parallel_for(10, [&](std::int64_t) { ++after; });
    CHECK(after == 10);
  }
  rattention::set_num_threads(0);
}

// Task 0 fails while the others wait for what it will never do.
void those_who_wait_hear_of_a_failure() {
  for (const int threads : {2, 4}) {
    rattention::set_num_threads(threads);
    std::atomic<bool> waits{false};
    std::string message;
    try {
      parallel_for(threads, [&](std::int64_t i) {
        if (i == 0) {
          for (int wait = 0; wait < 1000 && !waits; ++wait) std::this_thread::sleep_for(1ms);
          throw std::length_error("the cause");
        }
        for (;;) {
          waits = true;
          rattention::stop_if_asked();
        }
      });
    } catch (const std::length_error& error) {
      message = error.what();
    }
    CHECK(message == "the cause");
  }
  rattention::set_num_threads(0);
}

struct Interrupted {};

void a_hook_ends_a_call() {
  for (const int threads : {1, 3}) {
    rattention::set_num_threads(threads);
    bool ended = false;
    try {
      const rattention::Interrupts interrupts([] { throw Interrupted{}; });
      parallel_for(threads, [](std::int64_t) {
        for (;;) rattention::stop_if_asked();
      });
    } catch (const Interrupted&) {
      ended = true;
    }
    CHECK(ended);
  }
  rattention::set_num_threads(0);
}

void nobody_is_asked_where_nothing_may_end() {
  const rattention::Interrupts interrupts([] { throw Interrupted{}; });
  const rattention::Interrupts none(nullptr);
  const auto end = std::chrono::steady_clock::now() + 120ms;
  parallel_for(2, [&](std::int64_t) {
    while (std::chrono::steady_clock::now() < end) rattention::stop_if_asked();
  });
}

std::atomic<int> computed{0};

// The task that asks goes on with what it has in its working memory.
void a_hook_may_compute() {
  rattention::set_num_threads(2);
  const rattention::Interrupts interrupts([] {
    parallel_for(3, [](std::int64_t) {
      rattention::Scratch& scratch = rattention::thread_scratch();
      scratch.reset(16);
      *scratch.take(16) = 2;
      ++computed;
    });
  });
  const auto end = std::chrono::steady_clock::now() + 200ms;
  parallel_for(2, [&](std::int64_t) {
    rattention::Scratch& scratch = rattention::thread_scratch();
    scratch.reset(16);
    float* own = scratch.take(16);
    *own = 1;
    while (std::chrono::steady_clock::now() < end) rattention::stop_if_asked();
    CHECK(*own == 1);
  });
  CHECK(computed >= 3 && computed % 3 == 0);
  rattention::set_num_threads(0);
}

int threads_of_the_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<int>(std::distance(begin(tasks), end(tasks)));
}

void callers_share_their_helpers() {
  constexpr int kCallers = 12;
  rattention::set_num_threads(6);
  std::atomic<int> wrong{0};
  std::atomic<int> most{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < kCallers; ++c) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::atomic<std::int64_t> sum{0};
        parallel_for(50, [&](std::int64_t i) { sum += i; });
        wrong += sum != 50 * 49 / 2;
      }
      most = std::max(most.load(), threads_of_the_process());
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
  CHECK(most <= 1 + kCallers + 5 + 1);  // the sanitizers may have one of their own
  rattention::set_num_threads(0);
}

void nested_loops_run_on_the_calling_thread() {
  rattention::set_num_threads(2);
  std::atomic<int> total{0};
  parallel_for(4, [&](std::int64_t) { parallel_for(5, [&](std::int64_t) { ++total; }); });
  CHECK(total == 20);
  rattention::set_num_threads(0);
}

void denormals_are_zero_inside_and_kept_outside() {
  volatile float tiny = 1e-39F;
  std::atomic<int> flushed{0};
  parallel_for(8, [&](std::int64_t) { flushed += tiny * 0.5F == 0.0F; });
  CHECK(flushed == 8);
  CHECK(tiny * 0.5F != 0.0F);
}

// Without care the child would wait forever for threads that only the parent has.
void a_forked_child_has_threads_of_its_own() {
  rattention::set_num_threads(2);
  std::atomic<int> total{0};
  parallel_for(16, [&](std::int64_t) { ++total; });
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::atomic<int> inside{0};
    parallel_for(16, [&](std::int64_t) { ++inside; });
    rattention::set_num_threads(3);
    parallel_for(16, [&](std::int64_t) { ++inside; });
    _exit(inside == 32 && rattention::get_num_threads() == 3 && threads_of_the_process() >= 3 ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(rattention::get_num_threads() == 2);
  rattention::set_num_threads(0);
}

}  // namespace

int main() {
  return rattention::test::run({
      {"every task runs once", every_task_runs_once},
      {"the first exception reaches the caller", the_first_exception_reaches_the_caller},
      {"those who wait hear of a failure", those_who_wait_hear_of_a_failure},
      {"a hook ends a call", a_hook_ends_a_call},
      {"nobody is asked where nothing may end", nobody_is_asked_where_nothing_may_end},
      {"a hook may compute", a_hook_may_compute},
      {"callers share their helpers", callers_share_their_helpers},
      {"nested loops run on the calling thread", nested_loops_run_on_the_calling_thread},
      {"denormals are zero inside and kept outside", denormals_are_zero_inside_and_kept_outside},
      {"a forked child has threads of its own", a_forked_child_has_threads_of_its_own},
  });
}
