#include "linear/delta_rule.h"

#include <algorithm>

#include "core/threads.h"
#include "kernels/rows.h"
#include "linear/delta_recurrence.h"
#include "linear/delta_states.h"
#include "linear/feature_map.h"
#include "linear/scan_plan.h"

namespace rattention {
namespace {

void store_rows(const DeltaProblem& problem, const OutputView& output, std::int64_t index, KeySpan tokens,
                const float* rows) {
  const std::int64_t heads = problem.query.heads();
  for (std::int64_t i = 0; i < tokens.size(); ++i) {
    store_row(rows + i * problem.columns(), problem.value.dim(),
              output.row(index / heads, index % heads, tokens.first + i), output.dtype);
  }
}

// What one token takes when another thread would have to wake for it.
constexpr std::int64_t kFewFloats = 1 << 16;

// The caller's memory for the final state, where it has the form of working memory; else none.
float* state_in_place(const DeltaProblem& problem, const DeltaForward& want, std::int64_t index) {
  if (want.final_state == nullptr || problem.columns() != problem.value.dim()) return nullptr;
  return problem.owns_state(index) ? want.final_state + problem.state_at(index) : nullptr;
}

// With the states of this head in `own`, where they are wanted.
void run_head(const DeltaProblem& problem, const DeltaForward& want, std::int64_t index, float* own) {
  const std::int64_t heads = problem.query.heads();
  Scratch& scratch = thread_scratch();
  scratch.reset(DeltaRecurrence::floats(problem) + problem.state_size());
  DeltaRecurrence recurrence(problem, scratch);
  float* in_place = state_in_place(problem, want, index);
  float* state = in_place != nullptr ? in_place : scratch.take(problem.state_size());
  const SavedStates saved(problem, own);
  for (const auto& [sequence, seeing] : delta_sequences(problem, index / heads)) {
    load_initial(problem, index, sequence, state);
    for (std::int64_t first = sequence.first; first < sequence.last; first += kChunk) {
      stop_if_asked();
      const KeySpan tokens{first, std::min(sequence.last, first + kChunk)};
      if (own != nullptr && first > sequence.first) saved.store(first, state);
      const float* rows = recurrence.run(index / heads, index % heads, tokens, seeing, state);
      if (want.output != nullptr) store_rows(problem, *want.output, index, tokens, rows);
    }
  }
  const bool stores = in_place == nullptr && want.final_state != nullptr && problem.owns_state(index);
  if (!stores) return;
  store_state(state, problem.key.dim(), problem.value.dim(), want.final_state + problem.state_at(index));
}

}  // namespace

void save_states(const DeltaProblem& problem, std::int64_t index, float* states) {
  run_head(problem, {}, index, states);
}

std::int64_t delta_saved_floats(const DeltaProblem& problem) {
  return problem.batch_heads() * SavedStates::floats(problem);
}

void delta_forward(const DeltaProblem& problem, const DeltaForward& want) {
  const std::int64_t work = problem.batch_heads() * problem.query.length() * problem.state_size();
  const OneThread alone(work < kFewFloats);
  const std::int64_t floats = SavedStates::floats(problem);
  parallel_for(problem.batch_heads(), [&](std::int64_t index) {
    run_head(problem, want, index, want.states == nullptr ? nullptr : want.states + index * floats);
  });
}

}  // namespace rattention
