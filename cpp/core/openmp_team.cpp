#include "core/openmp_team.h"

#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <future>
#include <thread>
#include <vector>

#include "core/main_thread.h"
#include "core/scratch.h"

namespace rattention {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<bool> sharing{false};
std::atomic<bool> forked{false};

void after_fork_in_child() { forked = true; }

const int fork_handler_registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);

// After threads could not be started; each try costs as much as a call.
constexpr std::chrono::milliseconds kRetry{100};
// For the stack of a thread, its local data and what OpenMP keeps of it.
constexpr std::size_t kRoomPerThread = std::size_t{16} << 20;

bool on_main_thread() {
  static thread_local const bool main = is_main_thread();
  return main;
}

// Whether there is address space for so many threads, and they start; all of them at a time, then they end.
bool can_start(int threads) noexcept {
  const std::size_t room = static_cast<std::size_t>(threads) * kRoomPerThread;
  void* reserved = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return false;
  munmap(reserved, room);
  std::vector<std::thread> started;
  std::promise<void> enough;
  bool all = true;
  try {
    started.reserve(static_cast<std::size_t>(threads));
    const std::shared_future<void> end = enough.get_future().share();
    for (int i = 0; i < threads; ++i) started.emplace_back([end] { end.wait(); });
  } catch (const std::exception&) {
    all = false;
  }
  enough.set_value();
  for (std::thread& thread : started) thread.join();
  return all;
}

// Of the main thread alone.
bool team_reaches(int helpers) noexcept {
  static int most = 0;
  static Clock::time_point next_try{};
  if (helpers <= most) return true;
  if (Clock::now() < next_try) return false;
  if (can_start(helpers)) {
    most = helpers;
    return true;
  }
  next_try = Clock::now() + kRetry;
  return false;
}

}  // namespace

void share_openmp_team() noexcept { sharing = fork_handler_registered == 0; }

bool run_with_openmp_team(Job& job, int helpers) noexcept {
  if (!sharing || forked || !on_main_thread() || !team_reaches(helpers)) return false;
#pragma omp parallel num_threads(helpers + 1)
  {
    make_thread_data();  // whether or not the thread finds a task
    job.run();
  }
  return true;
}

}  // namespace rattention
