// A chunk of the gated delta rule as the backward pass needs it, in the form of a triangular system (the WY form of
// Parallelizing Linear Transformers with the Delta Rule, arXiv 2406.06484; with gates arXiv 2412.06464). With S the
// state before the chunk:
//
//   e_i = v_i - e^{G_i} k_i S - sum_{j < i} e^{G_i - G_j} (k_i . k_j) u_j,   u_i = beta_i e_i
//   out_i = e^{G_i} q_i S + sum_{j <= i} e^{G_i - G_j} (q_i . k_j) u_j
//   S' = e^{G_last} S + sum_j e^{G_last - G_j} k_j^T u_j
//
// Without correction e_i = u_i = v_i, and no key reads.
#pragma once

#include <cstdint>
#include <memory>

#include "core/scratch.h"
#include "linear/delta_decay.h"
#include "linear/delta_problem.h"

namespace rattention {

class DeltaChunk {
 public:
  DeltaChunk(const DeltaProblem& problem, Scratch& scratch);
  static std::int64_t floats(const DeltaProblem& problem);

  // Goes to the tokens of a head: all that does not depend on the state. Rows before token `seeing` see nothing.
  void load(std::int64_t batch, std::int64_t head, KeySpan tokens, std::int64_t seeing);
  // Finds errors and updates, given the state before the chunk.
  void solve(const float* state);

  // What the backward pass needs of it: rows [n][width] of queries (scaled) and keys, as they are, as they read the
  // state (keys with a minus), and as they join it; factors that normalised them; triangles, ties with a minus; and
  // errors and updates [n][columns].
  const float* queries() const { return queries_; }
  const float* keys() const { return keys_; }
  const float* reading_queries() const { return reading_queries_; }
  const float* reading_keys() const { return reading_keys_; }
  const float* joining_keys() const { return joining_keys_; }
  const float* query_factors() const { return query_factors_; }
  const float* key_factors() const { return key_factors_; }
  ChunkPairs pairs() const { return pairs_; }
  const float* reads() const { return pairs_.reads; }
  const float* ties() const { return pairs_.ties; }
  const float* beta() const { return beta_; }
  const float* errors() const { return errors_; }
  const float* updates() const { return updates_; }
  std::int64_t unseeing() const { return unseeing_; }  // rows at its start
  bool hidden(std::int64_t i) const { return problem_.hidden(batch_, first_ + i); }
  ChunkDecay& decay() const { return *decay_; }

 private:
  void load_rows(const TensorView& view, std::int64_t head, float scale, float* rows, float* factors) const;
  void load_values(std::int64_t head);
  void load_beta(std::int64_t head);

  const DeltaProblem& problem_;
  std::unique_ptr<ChunkDecay> decay_;
  std::int64_t batch_ = 0;
  std::int64_t first_ = 0;
  std::int64_t size_ = 0;
  std::int64_t unseeing_ = 0;
  float* queries_;
  float* keys_;
  float* reading_queries_;
  float* reading_keys_;
  float* joining_keys_;
  float* query_factors_;
  float* key_factors_;
  float* panel_;  // keys in columns
  float* beta_;
  ChunkPairs pairs_;
  float* errors_;
  float* updates_;
};

}  // namespace rattention
