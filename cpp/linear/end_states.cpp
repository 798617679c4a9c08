#include "linear/end_states.h"

#include <algorithm>
#include <limits>

#include "linear/decay_products.h"
#include "linear/feature_map.h"

namespace rattention {
namespace {

// `states` of the caller, or zeros without them.
void load_or_clear(const LinearProblem& problem, const float* states, std::int64_t state_head, float* state) {
  if (states == nullptr) {
    std::fill_n(state, problem.state_size(), 0.0F);
  } else {
    load_state(states + state_head * problem.user_state_size(), problem.features(), problem.value.dim(), state);
  }
}

// What is left of an initial state; never nothing of an infinite one, unless it is forgotten.
void add_own(double left, const float* own, std::int64_t size, float* state) {
  if (left == 0.0) return;
  const float factor = std::max(static_cast<float>(left), std::numeric_limits<float>::min());
  for (std::int64_t i = 0; i < size; ++i) state[i] += factor * own[i];
}

}  // namespace

const float* initial_state(const LinearProblem& problem, std::int64_t batch, std::int64_t state_head) {
  return problem.initial_state + (batch * problem.state_heads + state_head) * problem.user_state_size();
}

void load_initial(const LinearProblem& problem, const Stretch& stretch, std::int64_t kv_head, float* state,
                  float* excess) {
  const bool given = stretch.initial && !problem.state_per_query_head();
  const std::int64_t state_head = stretch.batch * problem.state_heads + kv_head;
  load_or_clear(problem, given ? problem.initial_state : nullptr, state_head, state);
  set_left(problem, 1.0, state);
  load_or_clear(problem, given ? problem.initial_excess : nullptr, state_head, excess);
}

void FinalStates::store(const LinearProblem& problem, const Stretch& last, std::int64_t kv_head, const float* base,
                        const float* excess) const {
  const std::int64_t size = problem.user_state_size();
  const std::int64_t copies = problem.state_per_query_head() ? problem.group() : 1;
  for (std::int64_t g = 0; g < copies; ++g) {
    const std::int64_t head = kv_head * copies + g;
    const std::int64_t at = (last.batch * problem.final_heads() + head) * size;
    if (excesses != nullptr) store_state(excess, problem.features(), problem.value.dim(), excesses + at);
    if (states == nullptr) continue;
    store_state(base, problem.features(), problem.value.dim(), states + at);
    if (copies == 1 || !last.initial) continue;
    const float* own = initial_state(problem, last.batch, head);
    add_own(left_of(problem, base), own, size, states + at);
  }
}

}  // namespace rattention
