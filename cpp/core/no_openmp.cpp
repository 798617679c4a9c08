// Instead of openmp_team.cpp where the core is built without OpenMP.
#include <algorithm>
#include <cstdlib>
#include <thread>

#include "core/openmp.h"
#include "core/openmp_team.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace rattention {
namespace {

int count_processors() {
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// The first number of a list, as OpenMP reads it; 0 where there is none.
int wanted_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  return text == nullptr ? 0 : static_cast<int>(std::clamp(std::strtol(text, nullptr, 10), 0L, 4096L));
}

}  // namespace

int processors() {
  static const int count = count_processors();
  return count;
}

int openmp_threads() {
  static const int wanted = wanted_threads();
  return wanted > 0 ? wanted : processors();
}

void share_openmp_team() noexcept {}

bool run_with_openmp_team(Job& /*job*/, int /*helpers*/) noexcept { return false; }

}  // namespace rattention
