#include "kernels/fma_rate.h"

#include <chrono>

#include "core/isa.h"

namespace rattention {
namespace {

const detail::FmaLoop& fma_loop() {
  if (active_isa() >= Isa::avx512) return detail::kAvx512FmaLoop;
  if (active_isa() >= Isa::avx2) return detail::kAvx2FmaLoop;
  return detail::kBaselineFmaLoop;
}

}  // namespace

double fma_rate(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kTurns = 20000;
  const detail::FmaLoop& loop = fma_loop();
  const Clock::time_point start = Clock::now();
  std::chrono::duration<double> elapsed{0};
  double operations = 0;
  while (elapsed.count() < seconds) {
    loop.run(kTurns);
    operations += kTurns * loop.operations;
    elapsed = Clock::now() - start;
  }
  return operations / elapsed.count() / 1e9;
}

}  // namespace rattention
