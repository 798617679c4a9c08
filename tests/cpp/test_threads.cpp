// parallel_for: every task once, exceptions, nesting, denormals and fork().
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "core/threads.h"

namespace {

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
void a_forked_child_computes_alone() {
  rattention::set_num_threads(2);
  std::atomic<int> total{0};
  parallel_for(16, [&](std::int64_t) { ++total; });
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::atomic<int> inside{0};
    parallel_for(16, [&](std::int64_t) { ++inside; });
    _exit(inside == 16 && rattention::get_num_threads() == 1 ? 0 : 1);
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
      {"nested loops run on the calling thread", nested_loops_run_on_the_calling_thread},
      {"denormals are zero inside and kept outside", denormals_are_zero_inside_and_kept_outside},
      {"a forked child computes alone", a_forked_child_computes_alone},
  });
}
