// The gated delta rule token by token, as the forward pass and decoding run it. Where a state fits into the first-level
// cache that takes fewer operations than chunks do, three for each of its numbers and token, and as many columns at a
// time as fit are taken through all tokens.
//
// The state does not decay token by token but now and then: in between a factor c, the product of the gates since, is
// left out of it, and keys join it times 1 / c while what reads it is multiplied by c.
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "linear/delta_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

class DeltaRecurrence {
 public:
  DeltaRecurrence(const DeltaProblem& problem, Scratch& scratch);
  static std::int64_t floats(const DeltaProblem& problem);

  // Takes `state`, [head_dim][columns], through up to kChunk tokens of a head, and returns their rows [n][columns].
  // Rows before token `seeing` see nothing.
  const float* run(std::int64_t batch, std::int64_t head, KeySpan tokens, std::int64_t seeing, float* state);

 private:
  // Asks for the rows that come next, while other work is done.
  void prefetch(KeySpan tokens) const;
  void load(std::int64_t seeing);
  // The decay that is left out, less log gates [n][gates_] summed since the state decayed last, and where it does.
  void sum_gates();
  void add_gates(std::int64_t i);
  // What rows and rates become of those sums.
  void scale_rows();
  void find_rates(std::int64_t i);
  void scale(const float* rows, const float* factors, float* out) const;
  void run_columns(std::int64_t first, std::int64_t columns, float* state);
  bool hidden(std::int64_t i) const { return problem_.hidden(batch_, tokens_.first + i); }

  const DeltaProblem& problem_;
  const std::int64_t width_;
  const std::int64_t columns_;
  std::int64_t batch_ = 0;
  std::int64_t head_ = 0;
  KeySpan tokens_;
  const std::int64_t gates_;  // one per token, or one per channel
  float* queries_;
  float* keys_;
  float* reading_keys_;
  float* values_;
  // e to the sums of gates up to and including a token, and one over that, [n][gates_].
  float* kept_;
  float* inverse_;
  bool decays_[kChunk] = {};  // tokens at which the state does
  float* rates_;              // of those [n][gates_, padded], see RowKernels::decay_rates
  std::int32_t* keeps_;
  float* pending_;  // [width] what the state has not decayed yet, as rates
  std::int32_t* pending_keeps_;
  float* read_;
  float* out_;
};

}  // namespace rattention
