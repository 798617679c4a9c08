#include "linear/state_scan.h"

#include <algorithm>
#include <vector>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"
#include "linear/end_states.h"
#include "linear/update_decay.h"
#include "linear/update_sum.h"

namespace rattention {

template <typename Update>
std::int64_t RunningState<Update>::floats(const LinearProblem& problem) {
  const std::int64_t head_states = problem.state_per_query_head() ? problem.group() + 1 : 0;
  return (4 + head_states) * Scratch::round_up(problem.state_size());
}

template <typename Update>
RunningState<Update>::RunningState(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      base_(scratch.take(problem.state_size())),
      excess_(scratch.take(problem.state_size())),
      local_(scratch.take(problem.state_size())),
      total_(scratch.take(problem.state_size())),
      head_states_(problem.state_per_query_head() ? scratch.take(problem.group() * problem.state_size()) : nullptr),
      head_total_(problem.state_per_query_head() ? scratch.take(problem.state_size()) : nullptr) {}

template <typename Update>
void RunningState<Update>::begin(const Stretch& stretch, std::int64_t kv_head) {
  load_initial(problem_, stretch, kv_head, base_, excess_);
  blank_ = !stretch.initial || problem_.state_per_query_head();
  chunks_ = 0;
  load_head_states(stretch, kv_head);
}

template <typename Update>
void RunningState<Update>::go_to(const Stretch& stretch, std::int64_t kv_head, const float* saved) {
  if (!stretch.resumes()) {
    begin(stretch, kv_head);
    return;
  }
  std::copy_n(saved, problem_.state_size(), base_);
  std::fill_n(excess_, problem_.state_size(), 0.0F);
  blank_ = false;
  chunks_ = 0;
  load_head_states(stretch, kv_head);
}

template <typename Update>
void RunningState<Update>::load_head_states(const Stretch& stretch, std::int64_t kv_head) {
  if (!problem_.state_per_query_head() || !stretch.initial) return;
  for (std::int64_t g = 0; g < problem_.group(); ++g) {
    load_state(initial_state(problem_, stretch.batch, kv_head * problem_.group() + g), problem_.features(),
               problem_.value.dim(), head_states_ + g * problem_.state_size());
  }
}

template <typename Update>
const float* RunningState<Update>::read(const Stretch& stretch, std::int64_t head) {
  const float* shared = this->shared();
  const float* own = this->own(stretch, head);
  if (own == nullptr) return shared;
  if (shared == nullptr) return own;
  Update::join_own(problem_, shared, own, head_total_);
  return head_total_;
}

template <typename Update>
void RunningState<Update>::add(const Update& update) {
  if (update.keys().size() == 0) return;
  if (chunks_ == 0) Update::start(problem_, local_);
  update.add_to(local_);
  ++chunks_;
  Update::join(problem_, base_, local_, total_);
}

template <typename Update>
void RunningState<Update>::close_stretch() {
  if (chunks_ == 0) return;
  Update::fold(problem_, local_, base_, excess_);
  blank_ = false;
  chunks_ = 0;
}

template <typename Update>
std::int64_t StateScan<Update>::floats(const LinearProblem& problem) {
  const auto up = Scratch::round_up;
  return Update::floats(problem) + RunningState<Update>::floats(problem) + up(kChunk * padded(problem.query.dim())) +
         up(kChunk * problem.feature_rows()) + up(kChunk * kChunk) + up(kChunk * problem.columns());
}

template <typename Update>
StateScan<Update>::StateScan(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      update_(problem, scratch),
      state_(problem, scratch),
      staging_(scratch.take(kChunk * padded(problem.query.dim()))),
      phi_(scratch.take(kChunk * problem.feature_rows())),
      scores_(scratch.take(kChunk * kChunk)),
      output_(scratch.take(kChunk * problem.columns())) {}

template <typename Update>
float* StateScan<Update>::rows_of(const Stretch& stretch, std::int64_t head, KeySpan rows) {
  const std::int64_t n = rows.size();
  const std::int64_t columns = problem_.columns();
  std::fill_n(output_, n * columns, 0.0F);
  if (rows.last <= stretch.first_seeing) return output_;
  load_phi_queries(problem_, stretch, head, rows, staging_, phi_);
  const float* state = state_.read(stretch, head);
  if (state != nullptr) update_.read(phi_, n, state, output_);
  if (update_.keys().size() > 0) {
    update_.pairs(Triangle::lower, phi_, update_.keys().phi(), n, problem_.features(), scores_);
    add_triangle(Triangle::lower, scores_, n, update_.keys().values(), true, output_);
    if (!tile_kernels().all_finite(output_, n * columns)) mend_rows(state, n);
  }
  return output_;
}

// Rows that see infinity or NaN in the chunk, or have it themselves, token by token: as the state gives it to later
// chunks, so that no row depends on where chunks begin. Other rows keep their bits.
template <typename Update>
void StateScan<Update>::mend_rows(const float* state, std::int64_t n) {
  const std::int64_t columns = problem_.columns();
  const std::int64_t features = problem_.features();
  std::int64_t clean = 0;  // rows before the first key that is not finite
  while (clean < n && update_.keys().finite(clean)) ++clean;
  if (clean < n) {
    std::fill_n(output_, n * columns, 0.0F);
    if (state != nullptr) update_.read(phi_, n, state, output_);
    add_triangle(Triangle::lower, scores_, clean, update_.keys().values(), false, output_);
  }
  std::vector<float> sum(static_cast<std::size_t>(problem_.state_size()));
  if (state != nullptr) std::copy_n(state, problem_.state_size(), sum.data());
  for (std::int64_t i = 0; i < n; ++i) {
    update_.add_one_to(i, sum.data());
    if (i < clean && column_finite(phi_, features, i)) continue;
    float* row = output_ + i * columns;
    std::fill_n(row, columns, 0.0F);
    update_.read_one(phi_, i, sum.data(), row);
  }
}

template class RunningState<SumUpdate>;
template class RunningState<DecayUpdate>;
template class StateScan<SumUpdate>;
template class StateScan<DecayUpdate>;

}  // namespace rattention
