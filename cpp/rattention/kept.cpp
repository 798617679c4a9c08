#include "rattention/kept.h"

namespace rattention {
namespace {

std::int64_t row_count(const RAttentionProblem& problem) {
  const TensorView& query = problem.linear.query;
  return query.batch() * query.heads() * query.length();
}

}  // namespace

std::int64_t RAttentionKept::floats(const RAttentionProblem& problem) {
  constexpr std::int64_t kDouble = 2;
  return row_count(problem) * (kDouble + 2 * problem.linear.value.dim()) + most_saved_floats(problem.linear);
}

RAttentionKept::RAttentionKept(const RAttentionProblem& problem, float* memory)
    : lse(reinterpret_cast<double*>(memory)),
      local(memory + 2 * row_count(problem)),
      linear(local + row_count(problem) * problem.linear.value.dim()),
      states(linear + row_count(problem) * problem.linear.value.dim()) {}

}  // namespace rattention
