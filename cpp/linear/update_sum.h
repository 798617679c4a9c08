// The update rule of residual linear attention, S_t = S_{t-1} + phi(k_t)^T v_t.
//
// The scans (StateScan forward, BackwardScan back, stretch_states) know how tokens are cut, in which order sums are
// taken and where states are kept. They take the rule as a template parameter, and all that happens to a state goes
// through it: how the rows of a chunk read the state before the chunk, and how they meet its keys; how keys join the
// state, or rows its gradient; how the sum of a stretch joins the state before it.
//
// A state that decays, S_t = a_t S_{t-1} + phi(k_t)^T v_t, is another rule with these members, DecayUpdate. With
// A_i = a_0 ... a_i over the n keys of a chunk: read() and read_back() take A_i of row i, pairs() A_i / A_j of row i
// and key j, add_to() and receive() A_{n-1} / A_j of key j, add_rows() A_i of row i; add_to() and pass_on() take
// A_{n-1} of the sum before anything is added. Where a sum joins a state, what is left of the latter is the product of
// all a since the stretch began, which lies beside the sum (LinearProblem::state_size()).
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "linear/chunk_products.h"
#include "linear/linear_problem.h"

namespace rattention {

class SumUpdate {
 public:
  SumUpdate(const LinearProblem& problem, Scratch& scratch) : problem_(problem), keys_(problem, scratch) {}
  static std::int64_t floats(const LinearProblem& problem) { return ChunkKeys::floats(problem); }

  static constexpr bool kGated = false;

  // Goes to a chunk's keys, perhaps none; or to what decays there alone.
  void load(std::int64_t batch, std::int64_t kv_head, KeySpan keys) { keys_.load(batch, kv_head, keys); }
  void load_gates(std::int64_t, std::int64_t, KeySpan) {}
  const ChunkKeys& keys() const { return keys_; }

  // n rows of the chunk, phi in columns, read the state before it: out[n][columns] += phi(q) S. And dL/dphi(q) += S g.
  // All results are zero on entry. Row i alone reads the state behind key i.
  void read(const float* phi, std::int64_t n, const float* state, float* out) const;
  void read_one(const float* phi, std::int64_t i, const float* state, float* row) const;
  void read_back(const float* grad_columns, std::int64_t n, const float* state, float* grad_phi) const;
  // Products of rows and keys that see each other, as triangle_product().
  void pairs(Triangle kept, const float* a, const float* b, std::int64_t n, std::int64_t depth, float* c) const {
    triangle_product(kept, a, b, n, depth, c);
  }
  // The keys receive the gradient of the state behind the chunk, R: dL/dphi(k) += R v and dL/dv += phi(k) R, zero on
  // entry.
  void receive(const float* gradient, const float* value_columns, float* grad_phi, float* grad_values) const;

  // A sum of no chunks; that with the loaded keys, with one of them, or with the rows that read the state, once the
  // gradient of the state behind the chunk has become that of the state before it.
  static void start(const LinearProblem& problem, float* sum);
  void add_to(float* sum) const;
  void add_one_to(std::int64_t i, float* sum) const;
  void pass_on(float*) const {}
  void add_rows(const float* phi, const ChunkRows& grads, std::int64_t n, float* sum) const;

  // The state behind a stretch, from that before it and the sum of the stretch; `joined` may be `base`.
  static void join(const LinearProblem& problem, const float* base, const float* sum, float* joined);
  // joined += that.
  static void join_more(const LinearProblem& problem, const float* base, const float* sum, float* joined);
  // A state and what is left of an initial state of its own.
  static void join_own(const LinearProblem& problem, const float* state, const float* own, float* joined);
  // The same as join() in place and with compensation: errors do not grow with the number of stretches.
  static void fold(const LinearProblem& problem, const float* sum, float* base, float* excess);

 private:
  const LinearProblem& problem_;
  ChunkKeys keys_;
};

}  // namespace rattention
