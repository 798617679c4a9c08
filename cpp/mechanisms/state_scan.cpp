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

// What a sequence starts from, but for per-query-head states.
void load_initial(const LinearProblem& problem, const Stretch& stretch, std::int64_t kv_head, float* state) {
  if (stretch.initial && !problem.state_per_query_head()) {
    load_state(initial_state(problem, stretch.batch, kv_head), problem.key.dim(), problem.value.dim(), state);
  } else {
    std::fill_n(state, problem.state_size(), 0.0F);
  }
}

}  // namespace

std::int64_t RunningState::floats(const LinearProblem& problem) {
  const std::int64_t head_states = problem.state_per_query_head() ? problem.group() + 1 : 0;
  return (3 + head_states) * Scratch::round_up(problem.state_size());
}

RunningState::RunningState(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      base_(scratch.take(problem.state_size())),
      local_(scratch.take(problem.state_size())),
      total_(scratch.take(problem.state_size())),
      head_states_(problem.state_per_query_head() ? scratch.take(problem.group() * problem.state_size()) : nullptr),
      head_total_(problem.state_per_query_head() ? scratch.take(problem.state_size()) : nullptr) {}

void RunningState::begin(const Stretch& stretch, std::int64_t kv_head) {
  load_initial(problem_, stretch, kv_head, base_);
  blank_ = !stretch.initial || problem_.state_per_query_head();
  chunks_ = 0;
  load_head_states(stretch, kv_head);
}

void RunningState::resume(const Stretch& stretch, std::int64_t kv_head, const float* state) {
  std::copy_n(state, problem_.state_size(), base_);
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
  std::swap(base_, total_);
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

const float* StateScan::rows_of(const Stretch& stretch, std::int64_t head, KeySpan rows) {
  const std::int64_t n = rows.size();
  const std::int64_t columns = problem_.columns();
  std::fill_n(output_, n * columns, 0.0F);
  if (rows.last <= stretch.first_seeing) return output_;
  load_phi_queries(problem_, stretch, head, rows, staging_, phi_);
  const float* state = state_.read(stretch, head);
  if (state != nullptr) {
    tile_kernels().multiply_add({phi_, 1, kChunk}, n, problem_.features(), state, columns, columns, output_, columns);
  }
  if (keys_.size() > 0) {
    triangle_product(Triangle::lower, phi_, keys_.phi(), n, problem_.features(), scores_);
    add_triangle(Triangle::lower, scores_, n, keys_.values(), keys_.values_finite(), output_);
  }
  return output_;
}

// Inputs stream from memory: without this a chunk would begin with a wait.
void StateScan::prefetch(const Stretch& stretch, std::int64_t kv_head, const Chunk& chunk) const {
  prefetch_rows(problem_.key, stretch.batch, kv_head, chunk.keys);
  prefetch_rows(problem_.value, stretch.batch, kv_head, chunk.keys);
  for (std::int64_t g = 0; g < problem_.group(); ++g) {
    prefetch_rows(problem_.query, stretch.batch, kv_head * problem_.group() + g, chunk.rows);
  }
}

void StateScan::store_final(const Stretch& stretch, std::int64_t kv_head, float* states) const {
  const std::int64_t size = problem_.user_state_size();
  const std::int64_t copies = problem_.state_per_query_head() ? problem_.group() : 1;
  for (std::int64_t g = 0; g < copies; ++g) {
    const std::int64_t head = kv_head * copies + g;
    float* state = states + (stretch.batch * problem_.final_heads() + head) * size;
    store_state(state_.base(), problem_.key.dim(), problem_.value.dim(), state);
    if (copies == 1 || !stretch.initial) continue;
    const float* own = initial_state(problem_, stretch.batch, head);
    for (std::int64_t i = 0; i < size; ++i) state[i] += own[i];
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
                    float* states) {
  const std::int64_t size = problem.state_size();
  std::vector<float> running(static_cast<std::size_t>(size));
  for (std::int64_t s = plan.begin(batch); s < plan.begin(batch + 1); ++s) {
    const Stretch& stretch = plan.stretch(s);
    if (stretch.begins) load_initial(problem, stretch, kv_head, running.data());
    float* state = states + plan.piece(s, kv_head) * size;
    if (stretch.last_chunk <= 0) {  // no keys; adding zeros would lose the sign of -0
      std::copy_n(running.data(), size, state);
      continue;
    }
    for (std::int64_t i = 0; i < size; ++i) {
      const float before = running[static_cast<std::size_t>(i)];
      running[static_cast<std::size_t>(i)] = before + state[i];
      state[i] = before;
    }
  }
}

}  // namespace

void stretch_states(const LinearProblem& problem, const ScanPlan& plan, float* states) {
  const std::int64_t heads = problem.key.heads();
  parallel_for(plan.pieces(), [&](std::int64_t piece) {
    sum_stretch(problem, plan.stretch(piece / heads), piece % heads, states + piece * problem.state_size());
  });
  parallel_for(plan.lanes(), [&](std::int64_t lane) { sums_to_states(problem, plan, lane / heads, lane % heads, states); });
}

}  // namespace rattention
