// The forward scan of the linear family, row t = phi(q_t) S_{t - window - 1}, chunk by chunk. The rule by which a state
// becomes the next is a parameter, see update_sum.h.
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "linear/chunk_products.h"
#include "linear/linear_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

// The state of one key/value head as a scan goes along: whole stretches, then the chunks since. Stretches are summed
// with compensation, so that the error does not grow with the length.
template <typename Update>
class RunningState {
 public:
  RunningState(const LinearProblem& problem, Scratch& scratch);
  static std::int64_t floats(const LinearProblem& problem);

  // Starts a sequence, or goes to the start of any stretch, whose saved state is needed where it resumes one.
  void begin(const Stretch& stretch, std::int64_t kv_head);
  void go_to(const Stretch& stretch, std::int64_t kv_head, const float* saved);

  // What a query head reads now, nullptr where that is zero: what the heads share, and what is left of its own initial
  // state, which own() gives as it was.
  const float* read(const Stretch& stretch, std::int64_t head);
  const float* shared() const { return chunks_ > 0 ? total_ : (blank_ ? nullptr : base_); }
  const float* own(const Stretch& stretch, std::int64_t head) const {
    if (!problem_.state_per_query_head() || !stretch.initial) return nullptr;
    return head_states_ + head % problem_.group() * problem_.state_size();
  }
  void add(const Update& update);
  void close_stretch();

  // At the start of a stretch or after the last, and without the initial state where each query head has its own.
  const float* base() const { return base_; }
  const float* excess() const { return excess_; }

 private:
  void load_head_states(const Stretch& stretch, std::int64_t kv_head);

  const LinearProblem& problem_;
  float* base_;         // sum of whole stretches
  float* excess_;       // what rounding has added to it
  float* local_;        // sum of the chunks since
  float* total_;        // both
  float* head_states_;  // initial states where each query head has its own
  float* head_total_;
  bool blank_ = true;        // base_ is zero
  std::int64_t chunks_ = 0;  // in local_
};

template <typename Update>
class StateScan {
 public:
  StateScan(const LinearProblem& problem, Scratch& scratch);
  static std::int64_t floats(const LinearProblem& problem);

  RunningState<Update>& state() { return state_; }

  // Calls emit(head, rows, float* of linear rows [rows][columns]) for the chunks of a stretch and the query heads of
  // the group.
  template <typename Emit>
  void run(const Stretch& stretch, std::int64_t kv_head, Emit&& emit) {
    for (std::int64_t index = stretch.first_chunk; index < stretch.last_chunk; ++index) {
      const Chunk chunk = stretch.chunk(index);
      update_.load(stretch.batch, kv_head, chunk.keys);
      if (index + 1 < stretch.last_chunk) prefetch_chunk(problem_, stretch.batch, kv_head, stretch.chunk(index + 1));
      for (std::int64_t g = 0; g < problem_.group(); ++g) {
        const std::int64_t head = kv_head * problem_.group() + g;
        emit(head, chunk.rows, rows_of(stretch, head, chunk.rows));
      }
      state_.add(update_);
    }
    state_.close_stretch();
  }

 private:
  float* rows_of(const Stretch& stretch, std::int64_t head, KeySpan rows);
  void mend_rows(const float* state, std::int64_t n);

  const LinearProblem& problem_;
  Update update_;
  RunningState<Update> state_;
  float* staging_;
  float* phi_;
  float* scores_;
  float* output_;
};

}  // namespace rattention
