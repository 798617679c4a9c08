#include "rattention/branches.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "core/scratch.h"
#include "core/threads.h"
#include "linear/stretch_states.h"
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

using Scan = StateScan<SumUpdate>;

Scan make_scan(const LinearProblem& problem) {
  Scratch& scratch = thread_scratch(ScratchUse::states);
  scratch.reset(Scan::floats(problem));
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
void Branches::run_stretches(const Range& range, std::int64_t kv_head, bool summed, const BranchWants& want,
                             const Visit& visit) const {
  Scan scan = make_scan(linear_);
  for (Range part{range.first, range.first}; part.first < range.last; part.first = part.last) {
    do {
      ++part.last;
    } while (part.last < range.last && !plan_.stretch(part.last).begins && part.last - part.first < kRangeStretches);
    run_range(part, kv_head, summed, want, visit, scan);
  }
}

void Branches::run_range(const Range& range, std::int64_t kv_head, bool summed, const BranchWants& want,
                         const Visit& visit, Scan& scan) const {
  const KeySpan rows{plan_.stretch(range.first).rows().first, plan_.stretch(range.last - 1).rows().last};
  const std::int64_t batch = plan_.stretch(range.first).batch;
  const std::int64_t columns = linear_.columns();
  const std::int64_t group = linear_.group();
  SoftmaxForward local;
  local.value = &problem_.local_value();
  local.lse = want.lse;
  float* local_rows = has_local() ? softmax_task(score_, local, row_task(score_, batch, kv_head, rows)) : nullptr;
  std::vector<float> none(static_cast<std::size_t>(has_local() ? 0 : columns));
  for (std::int64_t s = range.first; s < range.last; ++s) {
    stop_if_asked();
    const Stretch& stretch = plan_.stretch(s);
    const std::int64_t saved = plan_.saved_state(stretch, kv_head) * linear_.state_size();
    if (summed) {
      scan.state().go_to(stretch, kv_head, want.states + saved);
    } else if (stretch.begins) {
      scan.state().begin(stretch, kv_head);
    } else if (want.states != nullptr && stretch.resumes()) {
      std::copy_n(scan.state().base(), linear_.state_size(), want.states + saved);
    }
    scan.run(stretch, kv_head, [&](std::int64_t head, KeySpan chunk, float* linear_rows) {
      for (std::int64_t i = 0; i < chunk.size(); ++i) {
        const std::int64_t row = chunk.first + i;
        std::fill(none.begin(), none.end(), 0.0F);
        float* local_row =
            has_local() ? local_rows + (head % group * rows.size() + row - rows.first) * columns : none.data();
        visit({stretch.section, batch, head, row, local_row, linear_rows + i * columns});
      }
    });
    if (!summed && stretch.ends) {
      want.final.store(linear_, stretch, kv_head, scan.state().base(), scan.state().excess());
    }
  }
}

void Branches::run_heads(const BranchWants& want, const Visit& visit) const {
  const std::int64_t heads = linear_.key.heads();
  parallel_for(plan_.batch_heads(), [&](std::int64_t index) {
    run_stretches({plan_.begin(index / heads), plan_.begin(index / heads + 1)}, index % heads, false, want, visit);
  });
}

void Branches::run_pieces(const BranchWants& want, const Visit& visit) const {
  const std::vector<Range> all = tasks();
  const std::int64_t heads = linear_.key.heads();
  parallel_for(static_cast<std::int64_t>(all.size()) * heads, [&](std::int64_t index) {
    run_stretches(all[static_cast<std::size_t>(index / heads)], index % heads, true, want, visit);
  });
}

void Branches::run(const BranchWants& want, const Visit& visit) const {
  if (!plan_.split_heads(kSplitCost)) {
    run_heads(want, visit);
    return;
  }
  BranchWants with_states = want;
  std::unique_ptr<float[]> own;
  if (want.states == nullptr) {
    own = new_states(linear_, plan_);
    with_states.states = own.get();
  }
  stretch_states<SumUpdate>(linear_, plan_, with_states.states, want.final);
  run_pieces(with_states, visit);
}

}  // namespace rattention
