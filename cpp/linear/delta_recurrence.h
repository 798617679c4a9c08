// The gated delta rule token by token, as the forward pass and decoding run it. Where a state fits into the first-level
// cache that takes fewer operations than chunks do, four for each of its numbers and token, and as many columns at a
// time as fit are taken through all tokens.
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "linear/delta_problem.h"

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
  void load_gates();
  void load_channel_gates();
  void run_columns(std::int64_t first, std::int64_t columns, float* state);
  bool hidden(std::int64_t i) const { return problem_.hidden(batch_, tokens_.first + i); }

  const DeltaProblem& problem_;
  const std::int64_t width_;
  const std::int64_t columns_;
  std::int64_t batch_ = 0;
  std::int64_t head_ = 0;
  KeySpan tokens_;
  float* queries_;
  float* keys_;
  float* reading_keys_;  // times the decay of their own token, where that is one per channel; if any read
  float* rates_;         // of tokens or their channels, see RowKernels::decay_rates
  std::int32_t* keeps_;
  float* values_;
  float* decays_;  // of tokens, where that is one per head
  float* read_;
  float* out_;
};

}  // namespace rattention
