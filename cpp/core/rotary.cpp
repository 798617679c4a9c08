#include "core/rotary.h"

#include <cmath>

#include "core/row_kernels.h"

namespace rattention {
namespace {

// Cosines and sines at positions first, first + step, ...
std::vector<float> angles(std::int64_t half, double theta, std::int64_t first, std::int64_t step,
                          std::int64_t entries) {
  const std::vector<double> frequencies = rotary_frequencies(2 * half, theta);
  std::vector<float> table(static_cast<std::size_t>(entries * 2 * half));
  for (std::int64_t e = 0; e < entries; ++e) {
    rotary_angles(frequencies, first + e * step, table.data() + e * 2 * half);
  }
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

Rotary::Rotary(std::int64_t dim, double theta, std::int64_t first, std::int64_t count)
    : half_(dim / 2),
      first_block_(first / kBlock),
      within_(angles(half_, theta, 0, 1, kBlock)),
      blocks_(angles(half_, theta, first_block_ * kBlock, kBlock,
                     count == 0 ? 0 : (first + count - 1) / kBlock - first_block_ + 1)) {}

void Rotary::turn(float* row, std::int64_t position, float direction) const {
  const std::int64_t entry = 2 * half_;
  row_kernels().rotate(row, half_, blocks_.data() + (position / kBlock - first_block_) * entry,
                       within_.data() + position % kBlock * entry, direction);
}

}  // namespace rattention
