// The gradient of the state as a backward scan goes along, and the gradients of outputs that it is made of.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/scratch.h"
#include "kernels/tile_kernels.h"
#include "linear/chunk_products.h"
#include "linear/linear_problem.h"

namespace rattention {

inline std::int64_t state_copies(const LinearProblem& problem) {
  return problem.state_per_query_head() ? problem.group() : 1;
}

// Gradients of the state flow from the last token to the first: R_t = R_{t+1} + phi(q_t)^T g_t, where row t reads the
// state. Summed by stretches and chunks as the states are; one for each query head where each has its own initial
// state.
template <typename Update>
class RunningGradient {
 public:
  RunningGradient(const LinearProblem& problem, Scratch& scratch)
      : problem_(problem),
        copies_(state_copies(problem)),
        base_(scratch.take(copies_ * problem.state_size())),
        local_(scratch.take(copies_ * problem.state_size())),
        total_(scratch.take(problem.state_size())) {
    std::fill_n(base_, copies_ * problem.state_size(), 0.0F);
    clear_local();
  }
  static std::int64_t floats(const LinearProblem& problem) {
    return 2 * Scratch::round_up(state_copies(problem) * problem.state_size()) +
           Scratch::round_up(problem.state_size());
  }

  // Before the last stretch of a sequence. What follows the last sequence is the final state.
  void begin(const Stretch& stretch, std::int64_t kv_head, const float* grad_state) {
    std::fill_n(base_, copies_ * problem_.state_size(), 0.0F);
    if (grad_state != nullptr && stretch.ends) {
      for (std::int64_t c = 0; c < copies_; ++c) {
        const std::int64_t head = stretch.batch * problem_.final_heads() + kv_head * copies_ + c;
        load_state(grad_state + head * problem_.user_state_size(), problem_.features(), problem_.value.dim(),
                   copy(base_, c));
      }
    }
    clear_local();
  }
  void go_to(const float* saved) {
    std::copy_n(saved, copies_ * problem_.state_size(), base_);
    clear_local();
  }

  void add(const Update& update, std::int64_t head, const float* phi, const ChunkRows& grads, std::int64_t n) {
    update.add_rows(phi, grads, n, copy(local_, copies_ == 1 ? 0 : head % copies_));
  }
  // From behind a chunk to before it, once its keys have received theirs.
  void pass(const Update& update) {
    for (std::int64_t c = 0; c < copies_; ++c) update.pass_on(copy(local_, c));
  }
  // What the keys of the chunks so far may receive.
  const float* read() {
    Update::join(problem_, base_, local_, total_);
    for (std::int64_t c = 1; c < copies_; ++c) {
      Update::join_more(problem_, copy(base_, c), copy(local_, c), total_);
    }
    return total_;
  }
  const float* total() const { return total_; }  // what read() gave
  // That of one copy of the state, in the same place.
  const float* read_copy(std::int64_t c) {
    Update::join(problem_, copy(base_, c), copy(local_, c), total_);
    return total_;
  }
  void close_stretch() {
    join_all(local_);
    clear_local();
  }
  // Takes the sum of a stretch and leaves what lies behind its first row.
  void join(float* sum) {
    join_all(sum);
    std::copy_n(base_, copies_ * problem_.state_size(), sum);
  }

  const float* local() const { return local_; }
  const float* base_of(std::int64_t c) const { return base_ + c * problem_.state_size(); }

 private:
  float* copy(float* states, std::int64_t c) const { return states + c * problem_.state_size(); }
  void clear_local() {
    for (std::int64_t c = 0; c < copies_; ++c) Update::start(problem_, copy(local_, c));
  }
  void join_all(float* sums) const {
    for (std::int64_t c = 0; c < copies_; ++c) {
      Update::join(problem_, copy(base_, c), copy(sums, c), copy(base_, c));
    }
  }

  const LinearProblem& problem_;
  const std::int64_t copies_;
  float* base_;   // of the stretches behind this one
  float* local_;  // of this stretch's chunks so far
  float* total_;
};

// Gradients of the outputs of a chunk, zero where the row sees nothing.
class ChunkGrads {
 public:
  ChunkGrads(const TensorView& grad_output, Scratch& scratch)
      : view_(grad_output),
        rows_(view_, scratch),
        staging_(scratch.take(kChunk * padded(view_.dim()))),
        columns_(scratch.take(kChunk * padded(view_.dim()))) {}
  static std::int64_t floats(const TensorView& view) {
    return ChunkRows::floats(view) + 2 * Scratch::round_up(kChunk * padded(view.dim()));
  }

  void load(const Stretch& stretch, std::int64_t head, KeySpan rows) {
    const std::int64_t unseeing = rows.intersect({rows.first, stretch.first_seeing}).size();
    rows_.load(stretch.batch, head, rows, unseeing > 0);
    for (std::int64_t i = 0; i < unseeing; ++i) rows_.clear(i);
    load_columns(view_, stretch.batch, head, rows, staging_, columns_);
    for (std::int64_t i = 0; i < unseeing; ++i) clear_column(columns_, rows_.columns(), i);
    finite_ = rows_.all_finite();
  }

  const ChunkRows& rows() const { return rows_; }
  const float* columns() const { return columns_; }
  bool finite() const { return finite_; }

 private:
  const TensorView& view_;
  ChunkRows rows_;
  float* staging_;
  float* columns_;
  bool finite_ = true;
};

}  // namespace rattention
