#include "kernels/rotary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>

#include "kernels/row_kernels.h"

namespace rattention {
namespace {

// Cosines and sines at positions first, first + step, ...
std::vector<float> angles(const std::vector<double>& frequencies, std::int64_t first, std::int64_t step,
                          std::int64_t entries) {
  const auto entry = 2 * static_cast<std::int64_t>(frequencies.size());
  std::vector<float> table(static_cast<std::size_t>(entries * entry));
  for (std::int64_t e = 0; e < entries; ++e) rotary_angles(frequencies, first + e * step, table.data() + e * entry);
  return table;
}

}  // namespace

std::vector<double> rotary_frequencies(std::int64_t dim, double theta) {
  std::vector<double> frequencies(static_cast<std::size_t>(dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(theta, -static_cast<double>(i) / static_cast<double>(frequencies.size()));
  }
  return frequencies;
}

void rotary_angles(const std::vector<double>& frequencies, std::int64_t position, float* cosines_and_sines) {
  const std::size_t half = frequencies.size();
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cosines_and_sines[i] = static_cast<float>(std::cos(angle));
    cosines_and_sines[half + i] = static_cast<float>(std::sin(angle));
  }
}

// What does not depend on positions.
struct Rotary::Turns {
  Turns(std::int64_t head_dim, double base)
      : dim(head_dim),
        theta(base),
        frequencies(rotary_frequencies(head_dim, base)),
        within(angles(frequencies, 0, 1, kBlock)) {}

  std::int64_t dim;
  double theta;
  std::vector<double> frequencies;
  std::vector<float> within;  // positions of a block, as Rotary::blocks_
};

// Those of the last few calls are kept, 2 MiB at most. A lock that another thread has, perhaps one that a fork() left
// behind for ever, is not waited for. Never destroyed: threads may still run when the process ends.
std::shared_ptr<const Rotary::Turns> Rotary::turns_of(std::int64_t dim, double theta) {
  constexpr std::size_t kKept = 8;
  constexpr std::int64_t kMostDim = 1024;
  static std::mutex& mutex = *new std::mutex;
  static auto& kept = *new std::array<std::shared_ptr<const Turns>, kKept>;
  static std::size_t next = 0;
  const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
  if (!lock.owns_lock() || dim > kMostDim) return std::make_shared<Turns>(dim, theta);
  for (const auto& turns : kept) {
    if (turns != nullptr && turns->dim == dim && turns->theta == theta) return turns;
  }
  return kept[next++ % kKept] = std::make_shared<Turns>(dim, theta);
}

Rotary::Rotary(std::int64_t dim, double theta, std::int64_t first, std::int64_t count)
    : half_(dim / 2),
      first_block_(first / kBlock),
      turns_(turns_of(dim, theta)),
      blocks_(angles(turns_->frequencies, first_block_ * kBlock, kBlock,
                     count == 0 ? 0 : (first + count - 1) / kBlock - first_block_ + 1)) {}

void Rotary::turn(float* row, std::int64_t position, float direction) const {
  const std::int64_t entry = 2 * half_;
  row_kernels().rotate(row, half_, blocks_.data() + (position / kBlock - first_block_) * entry,
                       turns_->within.data() + position % kBlock * entry, direction);
}

}  // namespace rattention
