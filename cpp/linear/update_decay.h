// The update rule of gated linear attention, S_t = a_t S_{t-1} + phi(k_t)^T v_t with a_t = e^log_gate_t from 0 to 1
// (RetNet, arXiv 2307.08621; Lightning attention, arXiv 2405.17381; Mamba2, arXiv 2405.21060). See update_sum.h for
// what the members are for.
//
// All factors of a chunk are products of gates, A_i = a_0 ... a_i and D_ij = a_{j+1} ... a_i, multiplied up in double
// and never divided: however strong the decay, they underflow to 0 and are right until then. A hidden key has a = 1. A
// gate of 0 forgets everything, infinity and NaN included, as the start of a segment does. The problem's scale is in
// the factors by which rows read.
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "linear/chunk_products.h"
#include "linear/decay_products.h"
#include "linear/linear_problem.h"

namespace rattention {

class DecayUpdate {
 public:
  static constexpr bool kGated = true;

  DecayUpdate(const LinearProblem& problem, Scratch& scratch);
  static std::int64_t floats(const LinearProblem& problem);

  void load(std::int64_t batch, std::int64_t kv_head, KeySpan keys);
  void load_gates(std::int64_t batch, std::int64_t kv_head, KeySpan keys);
  const ChunkKeys& keys() const { return keys_; }
  const DecayProducts& decays() const { return decays_; }

  void read(const float* phi, std::int64_t n, const float* state, float* out) const;
  void read_one(const float* phi, std::int64_t i, const float* state, float* row) const;
  void read_back(const float* grad_columns, std::int64_t n, const float* state, float* grad_phi) const;
  void pairs(Triangle kept, const float* a, const float* b, std::int64_t n, std::int64_t depth, float* c) const {
    triangle_product(kept, a, b, n, depth, c);
    weigh(kept, n, c);
  }
  // Products of pairs by what is left of the key when the row reads.
  void weigh(Triangle kept, std::int64_t n, float* c) const;
  void receive(const float* gradient, const float* value_columns, float* grad_phi, float* grad_values) const;

  static void start(const LinearProblem& problem, float* sum);
  void add_to(float* sum) const;
  void add_one_to(std::int64_t i, float* sum) const;
  void pass_on(float* sum) const;
  void add_rows(const float* phi, const ChunkRows& grads, std::int64_t n, float* sum) const;

  static void join(const LinearProblem& problem, const float* base, const float* sum, float* joined);
  static void join_more(const LinearProblem& problem, const float* base, const float* sum, float* joined);
  static void join_own(const LinearProblem& problem, const float* state, const float* own, float* joined);
  static void fold(const LinearProblem& problem, const float* sum, float* base, float* excess);

 private:
  void add_weighted(const float* phi, const ChunkRows& rows, KeySpan span, const float* factors, float* sum) const;

  const LinearProblem& problem_;
  ChunkKeys keys_;
  DecayProducts decays_;
  float* weighted_;  // [kChunk][columns]
};

}  // namespace rattention
