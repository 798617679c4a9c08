#include "linear/state_scan.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "core/threads.h"
#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

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

void RunningState::go_to(const Stretch& stretch, std::int64_t kv_head, const float* saved) {
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
         up(kChunk * problem.feature_rows()) + up(kChunk * kChunk) + up(kChunk * problem.columns());
}

StateScan::StateScan(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      keys_(problem, scratch),
      state_(problem, scratch),
      staging_(scratch.take(kChunk * padded(problem.query.dim()))),
      phi_(scratch.take(kChunk * problem.feature_rows())),
      scores_(scratch.take(kChunk * kChunk)),
      output_(scratch.take(kChunk * problem.columns())) {}

float* StateScan::rows_of(const Stretch& stretch, std::int64_t head, KeySpan rows) {
  const std::int64_t n = rows.size();
  const std::int64_t columns = problem_.columns();
  std::fill_n(output_, n * columns, 0.0F);
  if (rows.last <= stretch.first_seeing) return output_;
  load_phi_queries(problem_, stretch, head, rows, staging_, phi_);
  const float* state = state_.read(stretch, head);
  add_products(state, n);
  if (keys_.size() > 0) {
    triangle_product(Triangle::lower, phi_, keys_.phi(), n, problem_.features(), scores_);
    add_triangle(Triangle::lower, scores_, n, keys_.values(), true, output_);
    if (!tile_kernels().all_finite(output_, n * columns)) mend_rows(state, n);
  }
  return output_;
}

void StateScan::add_products(const float* state, std::int64_t n) {
  if (state == nullptr) return;
  const std::int64_t columns = problem_.columns();
  tile_kernels().multiply_add({phi_, kChunk, true}, n, problem_.features(), state, columns, columns, output_, columns);
}

// Rows that see infinity or NaN in the chunk, or have it themselves, token by token: as the state gives it to later
// chunks, so that no row depends on where chunks begin. Other rows keep their bits.
void StateScan::mend_rows(const float* state, std::int64_t n) {
  const std::int64_t columns = problem_.columns();
  const std::int64_t features = problem_.features();
  std::int64_t clean = 0;  // rows before the first key that is not finite
  while (clean < n && keys_.finite(clean)) ++clean;
  if (clean < n) {
    std::fill_n(output_, n * columns, 0.0F);
    add_products(state, n);
    add_triangle(Triangle::lower, scores_, clean, keys_.values(), false, output_);
  }
  std::vector<float> sum(static_cast<std::size_t>(problem_.state_size()));
  if (state != nullptr) std::copy_n(state, problem_.state_size(), sum.data());
  for (std::int64_t i = 0; i < n; ++i) {
    keys_.add_one_to(i, sum.data());
    if (i < clean && column_finite(phi_, features, i)) continue;
    float* row = output_ + i * columns;
    std::fill_n(row, columns, 0.0F);
    tile_kernels().multiply_add({phi_ + i, kChunk, true}, 1, features, sum.data(), columns, columns, row, columns);
  }
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

// Sums of stretches and the states they become. A stretch's sum lies where the state after it will: in the next
// stretch's place, or among the last ones at the end of a batch entry.
class StretchStates {
 public:
  StretchStates(const LinearProblem& problem, const ScanPlan& plan, float* states, const FinalStates& final)
      : problem_(problem), plan_(plan), states_(states), final_(final), size_(problem.state_size()) {
    if (final.wanted()) last_.reset(new float[static_cast<std::size_t>(plan.batch_heads() * size_)]);
  }

  void sum_piece(std::int64_t piece) const {
    const std::int64_t heads = problem_.key.heads();
    const std::int64_t section = piece / heads;
    for (std::int64_t s = plan_.section_begin(section); s < plan_.section_begin(section + 1); ++s) {
      if (float* sum = after(s, piece % heads)) sum_stretch(problem_, plan_.stretch(s), piece % heads, sum);
    }
  }

  void join_head(std::int64_t batch, std::int64_t kv_head) const {
    std::vector<float> memory(static_cast<std::size_t>(2 * size_));
    float* running = memory.data();
    float* excess = running + size_;
    for (std::int64_t s = plan_.begin(batch); s < plan_.begin(batch + 1); ++s) {
      stop_if_asked();
      const Stretch& stretch = plan_.stretch(s);
      if (stretch.begins) load_initial(problem_, stretch, kv_head, running, excess);
      if (float* sum = after(s, kv_head)) {
        row_kernels().add_compensated(sum, 1.0F, size_, running, excess);
        std::copy_n(running, size_, sum);
      }
      if (stretch.ends) final_.store(problem_, stretch, kv_head, running, excess);
    }
  }

 private:
  // Where the state after a stretch with keys goes, nullptr where nobody reads it.
  float* after(std::int64_t s, std::int64_t kv_head) const {
    const Stretch& stretch = plan_.stretch(s);
    if (!stretch.has_keys()) return nullptr;
    if (!stretch.closes) return states_ + plan_.saved_state(plan_.stretch(s + 1), kv_head) * size_;
    if (!stretch.ends || last_ == nullptr) return nullptr;
    return last_.get() + (stretch.batch * problem_.key.heads() + kv_head) * size_;
  }

  const LinearProblem& problem_;
  const ScanPlan& plan_;
  float* states_;
  const FinalStates& final_;
  const std::int64_t size_;
  std::unique_ptr<float[]> last_;
};

}  // namespace

void stretch_states(const LinearProblem& problem, const ScanPlan& plan, float* states, const FinalStates& final) {
  const std::int64_t heads = problem.key.heads();
  const StretchStates work(problem, plan, states, final);
  parallel_for(plan.pieces(), [&work](std::int64_t piece) { work.sum_piece(piece); });
  parallel_for(plan.batch_heads(),
               [&work, heads](std::int64_t index) { work.join_head(index / heads, index % heads); });
}

std::unique_ptr<float[]> new_states(const LinearProblem& problem, const ScanPlan& plan) {
  return std::unique_ptr<float[]>(new float[static_cast<std::size_t>(plan.saved_states() * problem.state_size())]);
}

}  // namespace rattention
