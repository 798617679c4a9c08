#include "mechanisms/state_scan.h"

#include <algorithm>
#include <vector>

#include "core/row_kernels.h"
#include "core/threads.h"
#include "core/tile_kernels.h"

namespace rattention {
namespace {

const float* initial_state(const LinearProblem& problem, std::int64_t batch, std::int64_t state_head) {
  return problem.initial_state + (batch * problem.state_heads + state_head) * problem.user_state_size();
}

// `states` of the caller, or zeros without them.
void load_or_clear(const LinearProblem& problem, const float* states, std::int64_t state_head, float* state) {
  if (states == nullptr) {
    std::fill_n(state, problem.state_size(), 0.0F);
  } else {
    load_state(states + state_head * problem.user_state_size(), problem.key.dim(), problem.value.dim(), state);
  }
}

// What a sequence starts from, but for per-query-head states.
void load_initial(const LinearProblem& problem, const Stretch& stretch, std::int64_t kv_head, float* state,
                  float* excess) {
  const bool given = stretch.initial && !problem.state_per_query_head();
  const std::int64_t state_head = stretch.batch * problem.state_heads + kv_head;
  load_or_clear(problem, given ? problem.initial_state : nullptr, state_head, state);
  load_or_clear(problem, given ? problem.initial_excess : nullptr, state_head, excess);
}

}  // namespace

std::int64_t RunningState::floats(const LinearProblem& problem) {
  const std::int64_t head_states = problem.state_per_query_head() ? problem.group() + 1 : 0;
  return (4 + head_states) * Scratch::round_up(problem.state_size());
}

RunningState::RunningState(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      base_(scratch.take(problem.state_size())),
      excess_(scratch.take(problem.state_size())),
      local_(scratch.take(problem.state_size())),
      total_(scratch.take(problem.state_size())),
      head_states_(problem.state_per_query_head() ? scratch.take(problem.group() * problem.state_size()) : nullptr),
      head_total_(problem.state_per_query_head() ? scratch.take(problem.state_size()) : nullptr) {}

void RunningState::begin(const Stretch& stretch, std::int64_t kv_head) {
  load_initial(problem_, stretch, kv_head, base_, excess_);
  blank_ = !stretch.initial || problem_.state_per_query_head();
  chunks_ = 0;
  load_head_states(stretch, kv_head);
}

void RunningState::resume(const Stretch& stretch, std::int64_t kv_head, const float* state) {
  std::copy_n(state, problem_.state_size(), base_);
  std::fill_n(excess_, problem_.state_size(), 0.0F);
  blank_ = false;
  chunks_ = 0;
  load_head_states(stretch, kv_head);
}

void RunningState::load_head_states(const Stretch& stretch, std::int64_t kv_head) {
  if (!problem_.state_per_query_head() || !stretch.initial) return;
  for (std::int64_t g = 0; g < problem_.group(); ++g) {
    load_state(initial_state(problem_, stretch.batch, kv_head * problem_.group() + g), problem_.key.dim(),
               problem_.value.dim(), head_states_ + g * problem_.state_size());
  }
}

const float* RunningState::read(const Stretch& stretch, std::int64_t head) {
  const float* shared = chunks_ > 0 ? total_ : (blank_ ? nullptr : base_);
  if (!problem_.state_per_query_head() || !stretch.initial) return shared;
  const float* own = head_states_ + head % problem_.group() * problem_.state_size();
  if (shared == nullptr) return own;
  row_kernels().sum(shared, own, problem_.state_size(), head_total_);
  return head_total_;
}

void RunningState::add(const ChunkKeys& keys) {
  if (keys.size() == 0) return;
  if (chunks_ == 0) std::fill_n(local_, problem_.state_size(), 0.0F);
  keys.add_to(local_);
  ++chunks_;
  row_kernels().sum(base_, local_, problem_.state_size(), total_);
}

void RunningState::close_stretch() {
  if (chunks_ == 0) return;
  row_kernels().add_compensated(local_, 1.0F, problem_.state_size(), base_, excess_);
  blank_ = false;
  chunks_ = 0;
}

std::int64_t StateScan::floats(const LinearProblem& problem) {
  const auto up = Scratch::round_up;
  return ChunkKeys::floats(problem) + RunningState::floats(problem) + up(kChunk * padded(problem.query.dim())) +
         up(kChunk * problem.features()) + up(kChunk * kChunk) + up(kChunk * problem.columns());
}

StateScan::StateScan(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      keys_(problem, scratch),
      state_(problem, scratch),
      staging_(scratch.take(kChunk * padded(problem.query.dim()))),
      phi_(scratch.take(kChunk * problem.features())),
      scores_(scratch.take(kChunk * kChunk)),
      output_(scratch.take(kChunk * problem.columns())) {}

float* StateScan::rows_of(const Stretch& stretch, std::int64_t head, KeySpan rows) {
  const std::int64_t n = rows.size();
  const std::int64_t columns = problem_.columns();
  std::fill_n(output_, n * columns, 0.0F);
  if (rows.last <= stretch.first_seeing) return output_;
  load_phi_queries(problem_, stretch, head, rows, staging_, phi_);
  const float* state = state_.read(stretch, head);
  if (state != nullptr) {
    tile_kernels().multiply_add({phi_, kChunk, true}, n, problem_.features(), state, columns, columns, output_,
                                columns);
  }
  if (keys_.size() > 0) {
    triangle_product(Triangle::lower, phi_, keys_.phi(), n, problem_.features(), scores_);
    add_triangle(Triangle::lower, scores_, n, keys_.values(), keys_.values_finite(), output_);
  }
  return output_;
}

void FinalStates::store(const LinearProblem& problem, const Stretch& last, std::int64_t kv_head, const float* base,
                        const float* excess) const {
  const std::int64_t size = problem.user_state_size();
  const std::int64_t copies = problem.state_per_query_head() ? problem.group() : 1;
  for (std::int64_t g = 0; g < copies; ++g) {
    const std::int64_t head = kv_head * copies + g;
    const std::int64_t at = (last.batch * problem.final_heads() + head) * size;
    if (excesses != nullptr) store_state(excess, problem.key.dim(), problem.value.dim(), excesses + at);
    if (states == nullptr) continue;
    store_state(base, problem.key.dim(), problem.value.dim(), states + at);
    if (copies == 1 || !last.initial) continue;
    const float* own = initial_state(problem, last.batch, head);
    for (std::int64_t i = 0; i < size; ++i) states[at + i] += own[i];
  }
}

namespace {

// Sum of the stretch's keys, by chunks in order as StateScan adds them.
void sum_stretch(const LinearProblem& problem, const Stretch& stretch, std::int64_t kv_head, float* sum) {
  Scratch& scratch = thread_scratch();
  scratch.reset(ChunkKeys::floats(problem));
  ChunkKeys keys(problem, scratch);
  std::fill_n(sum, problem.state_size(), 0.0F);
  for (std::int64_t index = std::max<std::int64_t>(0, stretch.first_chunk); index < stretch.last_chunk; ++index) {
    keys.load(stretch.batch, kv_head, stretch.chunk(index).keys);
    keys.add_to(sum);
  }
}

// Turns sums of stretches into the states before them.
void sums_to_states(const LinearProblem& problem, const ScanPlan& plan, std::int64_t batch, std::int64_t kv_head,
                    float* states, const FinalStates& final) {
  const std::int64_t size = problem.state_size();
  std::vector<float> memory(static_cast<std::size_t>(3 * size));
  float* running = memory.data();
  float* excess = running + size;
  float* sum = excess + size;
  for (std::int64_t s = plan.begin(batch); s < plan.begin(batch + 1); ++s) {
    stop_if_asked();
    const Stretch& stretch = plan.stretch(s);
    if (stretch.begins) load_initial(problem, stretch, kv_head, running, excess);
    float* state = states + plan.piece(s, kv_head) * size;
    std::copy_n(state, size, sum);
    std::copy_n(running, size, state);
    // Without keys there is nothing to add; adding zeros would lose the sign of -0.
    if (stretch.last_chunk > 0) row_kernels().add_compensated(sum, 1.0F, size, running, excess);
    if (stretch.ends) final.store(problem, stretch, kv_head, running, excess);
  }
}

}  // namespace

void stretch_states(const LinearProblem& problem, const ScanPlan& plan, float* states, const FinalStates& final) {
  const std::int64_t heads = problem.key.heads();
  parallel_for(plan.pieces(), [&](std::int64_t piece) {
    sum_stretch(problem, plan.stretch(piece / heads), piece % heads, states + piece * problem.state_size());
  });
  parallel_for(plan.lanes(),
               [&](std::int64_t lane) { sums_to_states(problem, plan, lane / heads, lane % heads, states, final); });
}

}  // namespace rattention
