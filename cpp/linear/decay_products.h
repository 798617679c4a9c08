// Products of the gates of one chunk, and the decay that a state carries beside it.
#pragma once

#include <array>
#include <cstdint>

#include "core/keys.h"
#include "core/scratch.h"
#include "linear/linear_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

// What is left of a state after all gates since its sum began (beside a state: since the sequence began). 0 where a
// gate of 0 was among them, and only there.
double left_of(const LinearProblem& problem, const float* state);
// The product of factors from 0 to 1: it may become small, but 0 means that one of them was.
double product_left(double a, double b);
void set_left(const LinearProblem& problem, double left, float* state);
// state *= factor; a factor of 0 clears whatever was there.
void decay_state(const LinearProblem& problem, double factor, float* state);
// A factor that a float can hold: what underflows is 0, but for infinite or NaN states, which stay what they are.
double usable_factor(const LinearProblem& problem, double factor, const float* state);

class DecayProducts {
 public:
  DecayProducts(const LinearProblem& problem, Scratch& scratch);
  static std::int64_t floats();

  // Without keys nothing decays.
  void load(std::int64_t batch, std::int64_t kv_head, KeySpan keys);

  double gate(std::int64_t i) const { return gates_[static_cast<std::size_t>(i)]; }
  // What is left behind the chunk of the state before it.
  double whole() const { return whole_; }
  // Rows before the first gate of 0 read the state before the chunk; keys from the last one on join that behind it.
  std::int64_t rows_reading() const { return reading_; }
  std::int64_t first_joining() const { return joining_; }
  // Scaled A_i of row i, and D_{n-1, j} of key j; 0 where they underflow.
  const float* of_rows() const { return of_rows_.data(); }
  const float* of_keys() const { return of_keys_.data(); }
  // Scaled D_ij for j <= i at [i][kChunk] + j, and its transpose; undefined elsewhere. Made when first asked for.
  const float* of_pairs() const;
  const float* of_pairs_turned() const;

 private:
  void multiply_up();

  const LinearProblem& problem_;
  std::int64_t size_ = 0;
  std::int64_t reading_ = kChunk;
  std::int64_t joining_ = 0;
  double whole_ = 1.0;
  std::array<double, kChunk> gates_{};
  std::array<float, kChunk> of_rows_{};
  std::array<float, kChunk> of_keys_{};
  float* pairs_;
  float* turned_;
  mutable bool has_pairs_ = false;
  mutable bool has_turned_ = false;
};

}  // namespace rattention
