#include "kernels/fma_rate.h"

#include <chrono>

#include "kernels/bf16_kernels.h"

namespace rattention {
namespace {

// GFLOP/s of turns of the loop for about `seconds`.
double rate_of(const detail::FmaLoop& loop, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kTurns = 20000;
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

}  // namespace

double fma_rate(double seconds) { return rate_of(detail::fma_loop(), seconds); }

double bf16_rate(double seconds) {
  const detail::FmaLoop* loop = detail::bf16_loop();
  if (loop == nullptr) return 0;
  const Bf16Session session(bf16_kernels());
  return rate_of(*loop, seconds);
}

}  // namespace rattention
