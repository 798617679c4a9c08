// What sequences start from, and what they leave behind.
#pragma once

#include <cstdint>

#include "linear/linear_problem.h"
#include "linear/scan_plan.h"

namespace rattention {

// The initial state of one head, in the caller's form, where there are any.
const float* initial_state(const LinearProblem& problem, std::int64_t batch, std::int64_t state_head);
// What a sequence starts from in padded form, but for per-query-head states.
void load_initial(const LinearProblem& problem, const Stretch& stretch, std::int64_t kv_head, float* state,
                  float* excess);

// Where final states go, in the caller's form: [batch, final_heads, features, value_dim], or nowhere.
struct FinalStates {
  float* states = nullptr;
  float* excesses = nullptr;

  bool wanted() const { return states != nullptr || excesses != nullptr; }

  void store(const LinearProblem& problem, const Stretch& last, std::int64_t kv_head, const float* base,
             const float* excess) const;
};

}  // namespace rattention
