// Rotary position embedding (RoFormer, arXiv 2104.09864), "rotate-half": the pair (x_i, x_{i + dim/2}) of the row at
// position t turns by the angle t * frequency_i, where frequency_i = theta^(-2 i / dim) unless a model scales it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace rattention {

// theta^(-2 i / dim) of the dim / 2 pairs.
std::vector<double> rotary_frequencies(std::int64_t dim, double theta);

// How the pairs of a row turn; empty vectors are no rotary embedding. A frequency of 0 leaves a pair where it is.
struct RotaryRates {
  std::vector<double> frequencies;  // radians per position
  std::vector<double> factors;      // of the turned pairs: the attention factor of YaRN (arXiv 2309.00071), else 1

  bool empty() const { return frequencies.empty(); }
  bool operator==(const RotaryRates& other) const {
    return frequencies == other.frequencies && factors == other.factors;
  }
  // std::invalid_argument unless they are those of rows with `dim` elements, or none.
  void check(std::int64_t dim) const;
  // Cosines, then sines of one position, times the factors, in float64 until the last rounding.
  void angles(std::int64_t position, float* cosines_and_sines) const;
};
// The plain embedding; theta 0 is none.
RotaryRates rotary_rates(std::int64_t dim, double theta);

// Angles are taken in float64 and kept as two short tables, one of positions within a block and one of blocks: the
// embedding of any position is a product of two entries, to float32 precision however far the position is. The first
// table is the same for every call with the same frequencies, and kept for the next.
class Rotary {
 public:
  // For positions [first, first + count).
  Rotary(const RotaryRates& rates, std::int64_t first, std::int64_t count);

  // Turns a row of two floats per pair to its position, or back. Both multiply by the factors: back is the transpose.
  void apply(float* row, std::int64_t position) const { turn(row, position, 1.0F); }
  void undo(float* row, std::int64_t position) const { turn(row, position, -1.0F); }

 private:
  static constexpr std::int64_t kBlock = 64;
  struct Turns;

  static std::shared_ptr<const Turns> turns_of(const std::vector<double>& frequencies);
  void turn(float* row, std::int64_t position, float direction) const;

  std::int64_t half_;
  std::int64_t first_block_;
  std::shared_ptr<const Turns> turns_;
  std::vector<float> blocks_;  // [entries][2][half]: cosines and sines of an entry's position, times the factors
};

}  // namespace rattention
