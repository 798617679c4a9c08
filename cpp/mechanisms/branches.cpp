#include "mechanisms/branches.h"

#include <algorithm>
#include <memory>

#include "core/scratch.h"
#include "core/threads.h"
#include "mechanisms/softmax_attention.h"

namespace rattention {
namespace {

// Summing the states of stretches beforehand, next to a sliding window of a few hundred keys.
constexpr double kSplitCost = 0.1;
// Stretches of which the sliding window is computed at once, at most: more of them share the keys before the first,
// fewer leave room in the second-level cache.
constexpr std::int64_t kRangeStretches = 6;
// Ranges per thread that let the dynamic schedule even out differences.
constexpr std::int64_t kRangesPerThread = 8;

// The sliding window has the thread's usual scratch.
StateScan make_scan(const LinearProblem& problem) {
  thread_local Scratch scratch;
  scratch.reset(StateScan::floats(problem));
  return {problem, scratch};
}

}  // namespace

Branches::Branches(const RAttentionProblem& problem)
    : linear_(problem.linear), plan_(problem.linear), score_(scaled_dot_product(linear_.query, linear_.key)) {
  score_.scale = problem.scale;
  score_.masks.left = linear_.window;
  score_.masks.right = 0;
  score_.masks.padding = linear_.padding;
  score_.masks.segments = linear_.segments;
  if (problem.rope_theta != 0) {
    score_.rotary = &rotary_.emplace(linear_.key.dim(), problem.rope_theta, 0, linear_.key.length());
  }
}

std::vector<Branches::Range> Branches::ranges(std::int64_t batch, std::int64_t stretches) const {
  std::vector<Range> ranges;
  for (std::int64_t s = plan_.begin(batch); s < plan_.begin(batch + 1); ++s) {
    if (ranges.empty() || plan_.stretch(s).begins || ranges.back().last - ranges.back().first == stretches) {
      ranges.push_back({s, s});
    }
    ++ranges.back().last;
  }
  return ranges;
}

void Branches::run_range(const Range& range, std::int64_t kv_head, bool summed, const BranchWants& want,
                         const Visit& visit, StateScan& scan) const {
  const KeySpan rows{plan_.stretch(range.first).rows().first, plan_.stretch(range.last - 1).rows().last};
  const std::int64_t batch = plan_.stretch(range.first).batch;
  const std::int64_t columns = linear_.columns();
  const std::int64_t group = linear_.group();
  SoftmaxForward local;
  local.value = &linear_.value;
  local.lse = want.lse;
  float* local_rows = has_local() ? softmax_task(score_, local, row_task(score_, batch, kv_head, rows)) : nullptr;
  std::vector<float> none(static_cast<std::size_t>(has_local() ? 0 : columns));
  for (std::int64_t s = range.first; s < range.last; ++s) {
    stop_if_asked();
    const Stretch& stretch = plan_.stretch(s);
    float* state = want.states + plan_.piece(s, kv_head) * linear_.state_size();
    if (summed) {
      scan.state().resume(stretch, kv_head, state);
    } else if (stretch.begins) {
      scan.state().begin(stretch, kv_head);
    }
    if (!summed && want.states != nullptr) std::copy_n(scan.state().base(), linear_.state_size(), state);
    scan.run(stretch, kv_head, [&](std::int64_t head, KeySpan chunk, float* linear_rows) {
      for (std::int64_t i = 0; i < chunk.size(); ++i) {
        const std::int64_t row = chunk.first + i;
        std::fill(none.begin(), none.end(), 0.0F);
        float* local_row =
            has_local() ? local_rows + (head % group * rows.size() + row - rows.first) * columns : none.data();
        visit({s, batch, head, row, local_row, linear_rows + i * columns});
      }
    });
    if (!summed && stretch.ends) {
      want.final.store(linear_, stretch, kv_head, scan.state().base(), scan.state().excess());
    }
  }
}

void Branches::run_lanes(const BranchWants& want, const Visit& visit) const {
  const std::int64_t heads = linear_.key.heads();
  parallel_for(plan_.lanes(), [&](std::int64_t lane) {
    StateScan scan = make_scan(linear_);
    for (const Range& range : ranges(lane / heads, kRangeStretches)) {
      run_range(range, lane % heads, false, want, visit, scan);
    }
  });
}

void Branches::run_pieces(const BranchWants& want, const Visit& visit) const {
  const std::int64_t even = plan_.pieces() / (kRangesPerThread * get_num_threads());
  std::vector<Range> all;
  for (std::int64_t b = 0; b < linear_.key.batch(); ++b) {
    const std::vector<Range> own = ranges(b, std::clamp<std::int64_t>(even, 1, kRangeStretches));
    all.insert(all.end(), own.begin(), own.end());
  }
  const std::int64_t heads = linear_.key.heads();
  parallel_for(static_cast<std::int64_t>(all.size()) * heads, [&](std::int64_t index) {
    StateScan scan = make_scan(linear_);
    run_range(all[static_cast<std::size_t>(index / heads)], index % heads, true, want, visit, scan);
  });
}

void Branches::run(const BranchWants& want, const Visit& visit) const {
  if (!plan_.split_lanes(kSplitCost)) {
    run_lanes(want, visit);
    return;
  }
  BranchWants with_states = want;
  std::unique_ptr<float[]> own;
  if (want.states == nullptr) {
    own.reset(new float[static_cast<std::size_t>(plan_.pieces() * linear_.state_size())]);
    with_states.states = own.get();
  }
  stretch_states(linear_, plan_, with_states.states, want.final);
  run_pieces(with_states, visit);
}

}  // namespace rattention
