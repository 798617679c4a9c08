// Rotary position embedding (RoFormer, arXiv 2104.09864), "rotate-half": the pair (x_i, x_{i + dim/2}) of the row at
// position t turns by the angle t * theta^(-2 i / dim).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace rattention {

// theta^(-2 i / dim) of the dim / 2 pairs.
std::vector<double> rotary_frequencies(std::int64_t dim, double theta);
// Cosines, then sines of one position's angles, in float64 until the last rounding.
void rotary_angles(const std::vector<double>& frequencies, std::int64_t position, float* cosines_and_sines);

// Angles are taken in float64 and kept as two short tables, one of positions within a block and one of blocks: the
// embedding of any position is a product of two entries, to float32 precision however far the position is. The first
// table is the same for every call with one theta and `dim`, and kept for the next.
class Rotary {
 public:
  // For positions [first, first + count) of rows with an even `dim`.
  Rotary(std::int64_t dim, double theta, std::int64_t first, std::int64_t count);

  // Turns a row of `dim` floats to its position, or back.
  void apply(float* row, std::int64_t position) const { turn(row, position, 1.0F); }
  void undo(float* row, std::int64_t position) const { turn(row, position, -1.0F); }

 private:
  static constexpr std::int64_t kBlock = 64;
  struct Turns;

  static std::shared_ptr<const Turns> turns_of(std::int64_t dim, double theta);
  void turn(float* row, std::int64_t position, float direction) const;

  std::int64_t half_;
  std::int64_t first_block_;
  std::shared_ptr<const Turns> turns_;
  std::vector<float> blocks_;  // [entries][2][half]: cosines and sines of an entry's position
};

}  // namespace rattention
