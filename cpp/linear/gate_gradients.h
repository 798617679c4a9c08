// The gradient of the gates of a decaying state, ln a_t, chunk by chunk on a backward scan's way.
//
// a_t multiplies everything that goes from before token t to t or later: what rows i >= t read of the state before the
// chunk, what keys j < t leave behind the chunk, pairs j < t <= i, and the state that passes through the chunk. So
//   dL/d(ln a_t) = sum_{i >= t} read_i + sum_{j < t} left_j + sum_{j < t <= i} pair_ij + passed
// where each term is a number of the chunk by its gradient. Nothing is subtracted, unlike in the sums of q dL/dq - k
// dL/dk that papers give: gradients of strong decays are small, and right.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/scratch.h"
#include "linear/linear_problem.h"
#include "linear/running_gradient.h"
#include "linear/scan_plan.h"
#include "linear/state_scan.h"
#include "linear/update_decay.h"

namespace rattention {

// Where nothing decays.
class NoGateGradients {
 public:
  NoGateGradients(const LinearProblem&, float*, Scratch&) {}
  static std::int64_t floats(const LinearProblem&) { return 0; }

  template <typename State>
  void begin_chunk(std::int64_t, const State&) {}
  void add_reads(std::int64_t, const float*, const float*, std::int64_t) {}
  void store(std::int64_t, std::int64_t, KeySpan) const {}
};

class GateGradients {
 public:
  GateGradients(const LinearProblem& problem, float* gradient, Scratch& scratch);
  static std::int64_t floats(const LinearProblem& problem);

  // On the way to the end, chunk `slot` of a stretch: the state before it, and rows that read it, phi(q) and what
  // reading adds to dL/dphi(q).
  void begin_chunk(std::int64_t slot, const RunningState<DecayUpdate>& state);
  void add_reads(std::int64_t slot, const float* phi, const float* grad_phi, std::int64_t n);

  // On the way back: keys, phi(k) and what R behind the chunk adds to dL/dphi(k); products of pairs, [i][kChunk] + j
  // with their decay and [j][kChunk] + i without; and the state that passes through, of which `whole` is left.
  void begin_keys(std::int64_t slot);
  void add_left(const float* phi, const float* grad_phi, std::int64_t n);
  void add_pairs(const float* lower, const float* upper, std::int64_t n);
  void add_passed(const Stretch& stretch, std::int64_t slot, std::int64_t kv_head, double whole,
                  const RunningState<DecayUpdate>& state, RunningGradient<DecayUpdate>& gradient);
  void store(std::int64_t batch, std::int64_t kv_head, KeySpan keys) const;

 private:
  using Numbers = std::array<float, kChunk>;

  float* state_of(std::int64_t slot) const { return states_ + slot * Scratch::round_up(problem_.state_size()); }

  const LinearProblem& problem_;
  float* gradient_;
  // Of the chunks of a stretch.
  std::vector<Numbers> reads_;
  std::vector<bool> blank_;  // the state is zero
  float* states_;
  // Of the chunk at hand.
  Numbers sums_{};
  float* turned_;
};

}  // namespace rattention
