#include "rattention/branches.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "core/scratch.h"
#include "core/threads.h"
#include "linear/stretch_states.h"
#include "linear/update_decay.h"
#include "linear/update_sum.h"
#include "softmax/softmax_attention.h"

namespace rattention {
namespace {

// Summing the states of stretches beforehand, next to a sliding window of a few hundred keys.
constexpr double kSplitCost = 0.1;
// Stretches of which the sliding window is computed at once, at most: more of them share the keys before the first,
// fewer leave room in the second-level cache.
constexpr std::int64_t kRangeStretches = 6;
// Ranges per thread that let the dynamic schedule even out differences.
constexpr std::int64_t kRangesPerThread = 8;

template <typename Update>
StateScan<Update> make_scan(const LinearProblem& problem) {
  Scratch& scratch = thread_scratch(ScratchUse::states);
  scratch.reset(StateScan<Update>::floats(problem));
  return {problem, scratch};
}

}  // namespace

Branches::Branches(const RAttentionProblem& problem)
    : problem_(problem),
      linear_(problem.linear),
      plan_(problem.linear),
      score_(scaled_dot_product(linear_.query, problem.local_key())) {
  score_.scale = problem.scale;
  score_.masks.left = problem.window();
  score_.masks.right = 0;
  score_.masks.padding = linear_.padding;
  if (linear_.segments != nullptr) {  // a segment ends where the id changes, as it does for the state
    score_.masks.within = runs_of(linear_.segments, linear_.key.batch(), linear_.key.length());
  }
  if (!problem.rope.empty()) {
    problem.rope.check(linear_.key.dim());
    // Scores depend on distances alone: positions may count from the first key at hand.
    score_.rotary = &rotary_.emplace(problem.rope, 0, problem.local_key().length());
  }
}

// Sections, as many together as keep all threads busy.
std::vector<Branches::Range> Branches::tasks() const {
  const std::int64_t even = plan_.pieces() / (kRangesPerThread * get_num_threads());
  const std::int64_t most = std::clamp<std::int64_t>(even, 1, kRangeStretches);
  std::vector<Range> tasks;
  std::int64_t gathered = most;
  for (std::int64_t g = 0; g < plan_.sections(); ++g, ++gathered) {
    const std::int64_t first = plan_.section_begin(g);
    if (gathered >= most || plan_.stretch(first - 1).ends) {
      tasks.push_back({first, first});
      gathered = 0;
    }
    tasks.back().last = plan_.section_begin(g + 1);
  }
  return tasks;
}

// The sliding window of a few stretches of one sequence is computed at once.
template <typename Update>
void Branches::run_stretches(const Range& range, std::int64_t kv_head, bool summed, float* states,
                             const BranchWants& want, const Visit& visit) const {
  StateScan<Update> scan = make_scan<Update>(linear_);
  for (Range part{range.first, range.first}; part.first < range.last; part.first = part.last) {
    do {
      ++part.last;
    } while (part.last < range.last && !plan_.stretch(part.last).begins && part.last - part.first < kRangeStretches);
    run_range(part, kv_head, summed, states, want, visit, scan);
  }
}

template <typename Update>
void Branches::run_range(const Range& range, std::int64_t kv_head, bool summed, float* states, const BranchWants& want,
                         const Visit& visit, StateScan<Update>& scan) const {
  const KeySpan rows{plan_.stretch(range.first).rows().first, plan_.stretch(range.last - 1).rows().last};
  const std::int64_t batch = plan_.stretch(range.first).batch;
  const std::int64_t columns = linear_.columns();
  const std::int64_t group = linear_.group();
  SoftmaxForward local;
  local.value = &problem_.local_value();
  local.lse = want.kept != nullptr ? want.kept->lse : nullptr;
  float* local_rows = has_local() ? softmax_task(score_, local, row_task(score_, batch, kv_head, rows)) : nullptr;
  std::vector<float> none(static_cast<std::size_t>(has_local() ? 0 : columns));
  for (std::int64_t s = range.first; s < range.last; ++s) {
    stop_if_asked();
    const Stretch& stretch = plan_.stretch(s);
    const std::int64_t saved = plan_.saved_state(stretch, kv_head) * linear_.state_size();
    if (summed) {
      scan.state().go_to(stretch, kv_head, states + saved);
    } else if (stretch.begins) {
      scan.state().begin(stretch, kv_head);
    } else if (states != nullptr && stretch.resumes()) {
      std::copy_n(scan.state().base(), linear_.state_size(), states + saved);
    }
    scan.run(stretch, kv_head, [&](std::int64_t head, KeySpan chunk, float* linear_rows) {
      for (std::int64_t i = 0; i < chunk.size(); ++i) {
        const std::int64_t row = chunk.first + i;
        std::fill(none.begin(), none.end(), 0.0F);
        float* local_row =
            has_local() ? local_rows + (head % group * rows.size() + row - rows.first) * columns : none.data();
        const BranchRow both{batch, head, row, local_row, linear_rows + i * columns};
        if (want.kept != nullptr) keep(*want.kept, both);
        visit(both);
      }
    });
    if (!summed && stretch.ends) {
      want.final.store(linear_, stretch, kv_head, scan.state().base(), scan.state().excess());
    }
  }
}

void Branches::keep(const RAttentionKept& kept, const BranchRow& row) const {
  const std::int64_t dim = linear_.value.dim();
  const std::int64_t at = ((row.batch * linear_.query.heads() + row.head) * linear_.query.length() + row.row) * dim;
  std::copy_n(row.local, dim, kept.local + at);
  std::copy_n(row.linear, dim, kept.linear + at);
}

template <typename Update>
void Branches::run_heads(float* states, const BranchWants& want, const Visit& visit) const {
  const std::int64_t heads = linear_.key.heads();
  parallel_for(plan_.batch_heads(), [&](std::int64_t index) {
    const Range all{plan_.begin(index / heads), plan_.begin(index / heads + 1)};
    run_stretches<Update>(all, index % heads, false, states, want, visit);
  });
}

template <typename Update>
void Branches::run_pieces(float* states, const BranchWants& want, const Visit& visit) const {
  const std::vector<Range> all = tasks();
  const std::int64_t heads = linear_.key.heads();
  parallel_for(static_cast<std::int64_t>(all.size()) * heads, [&](std::int64_t index) {
    run_stretches<Update>(all[static_cast<std::size_t>(index / heads)], index % heads, true, states, want, visit);
  });
}

template <typename Update>
void Branches::run_all(const BranchWants& want, const Visit& visit) const {
  float* states = want.kept != nullptr ? want.kept->states : nullptr;
  if (!plan_.split_heads(kSplitCost)) {
    run_heads<Update>(states, want, visit);
    return;
  }
  std::unique_ptr<float[]> own;
  if (states == nullptr) {
    own = new_states(linear_, plan_);
    states = own.get();
  }
  stretch_states<Update>(linear_, plan_, states, want.final);
  run_pieces<Update>(states, want, visit);
}

void Branches::run(const BranchWants& want, const Visit& visit) const {
  if (linear_.log_gates != nullptr) {
    run_all<DecayUpdate>(want, visit);
  } else {
    run_all<SumUpdate>(want, visit);
  }
}

}  // namespace rattention
