#include "kernels/rotary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <stdexcept>
#include <string>

#include "kernels/row_kernels.h"

namespace rattention {
namespace {

// Cosines and sines at positions first, first + step, ...
std::vector<float> table_of(const RotaryRates& rates, std::int64_t first, std::int64_t step, std::int64_t entries) {
  const auto entry = 2 * static_cast<std::int64_t>(rates.frequencies.size());
  std::vector<float> table(static_cast<std::size_t>(entries * entry));
  for (std::int64_t e = 0; e < entries; ++e) rates.angles(first + e * step, table.data() + e * entry);
  return table;
}

std::vector<double> ones(std::size_t n) { return std::vector<double>(n, 1.0); }

}  // namespace

std::vector<double> rotary_frequencies(std::int64_t dim, double theta) {
  std::vector<double> frequencies(static_cast<std::size_t>(dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(theta, -static_cast<double>(i) / static_cast<double>(frequencies.size()));
  }
  return frequencies;
}

RotaryRates rotary_rates(std::int64_t dim, double theta) {
  if (theta == 0) return {};
  return {rotary_frequencies(dim, theta), ones(static_cast<std::size_t>(dim / 2))};
}

void RotaryRates::check(std::int64_t dim) const {
  if (empty() && factors.empty()) return;
  if (2 * static_cast<std::int64_t>(frequencies.size()) == dim && factors.size() == frequencies.size()) return;
  throw std::invalid_argument("a rotary embedding needs a frequency and a factor for each of the head_dim / 2 pairs; " +
                              std::to_string(frequencies.size()) + " and " + std::to_string(factors.size()) +
                              " were given for head_dim " + std::to_string(dim));
}

void RotaryRates::angles(std::int64_t position, float* cosines_and_sines) const {
  const std::size_t half = frequencies.size();
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cosines_and_sines[i] = static_cast<float>(factors[i] * std::cos(angle));
    cosines_and_sines[half + i] = static_cast<float>(factors[i] * std::sin(angle));
  }
}

// What does not depend on positions.
struct Rotary::Turns {
  explicit Turns(const std::vector<double>& of)
      : frequencies(of), within(table_of({of, ones(of.size())}, 0, 1, kBlock)) {}

  std::vector<double> frequencies;
  std::vector<float> within;  // positions of a block, as Rotary::blocks_
};

// Those of the last few calls are kept, 2 MiB at most. A lock that another thread has, perhaps one that a fork() left
// behind for ever, is not waited for. Never destroyed: threads may still run when the process ends.
std::shared_ptr<const Rotary::Turns> Rotary::turns_of(const std::vector<double>& frequencies) {
  constexpr std::size_t kKept = 8;
  constexpr std::size_t kMostPairs = 512;
  static std::mutex& mutex = *new std::mutex;
  static auto& kept = *new std::array<std::shared_ptr<const Turns>, kKept>;
  static std::size_t next = 0;
  const std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
  if (!lock.owns_lock() || frequencies.size() > kMostPairs) return std::make_shared<Turns>(frequencies);
  for (const auto& turns : kept) {
    if (turns != nullptr && turns->frequencies == frequencies) return turns;
  }
  return kept[next++ % kKept] = std::make_shared<Turns>(frequencies);
}

Rotary::Rotary(const RotaryRates& rates, std::int64_t first, std::int64_t count)
    : half_(static_cast<std::int64_t>(rates.frequencies.size())),
      first_block_(first / kBlock),
      turns_(turns_of(rates.frequencies)),
      blocks_(table_of(rates, first_block_ * kBlock, kBlock,
                       count == 0 ? 0 : (first + count - 1) / kBlock - first_block_ + 1)) {}

void Rotary::turn(float* row, std::int64_t position, float direction) const {
  const std::int64_t entry = 2 * half_;
  row_kernels().rotate(row, half_, blocks_.data() + (position / kBlock - first_block_) * entry,
                       turns_->within.data() + position % kBlock * entry, direction);
}

}  // namespace rattention
