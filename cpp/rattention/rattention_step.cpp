#include "rattention/rattention_step.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/scratch.h"
#include "core/threads.h"
#include "rattention/head_step.h"
#include "rattention/norm_join.h"
#include "rattention/prefill.h"

namespace rattention {
namespace {

// One thread reads as much as this in about 0.1 ms. With less, a second one saves little where cores are idle, and
// costs a time slice of several milliseconds where other programs keep them busy.
constexpr std::int64_t kParallelBytes = 4 << 20;

// From so many tokens of a sequence on, blocks of rows are faster than one row after the other.
constexpr std::int64_t kPrefillTokens = 32;

// Zeros where a sequence has no token.
void clear_absent(const StepProblem& problem, const OutputView& output) {
  const std::int64_t row_bytes = output.shape[3] * size_of(output.dtype);
  for (std::int64_t b = 0; b < problem.query.batch(); ++b) {
    const std::int64_t absent = problem.query.length() - problem.count(b);
    for (std::int64_t h = 0; absent > 0 && h < problem.query.heads(); ++h) {
      std::memset(output.row(b, h, problem.count(b)), 0, static_cast<std::size_t>(absent * row_bytes));
    }
  }
}

// What all heads read, and working memory of each: reserved before the cache changes.
class CallMemory {
 public:
  CallMemory(const StepProblem& problem, RAttentionCache& cache, std::int64_t head_floats) : head_floats_(head_floats) {
    const std::int64_t heads = problem.query.heads();
    const std::int64_t value_dim = cache.config().value_dim;
    const std::int64_t angles =
        cache.rotates() ? problem.query.batch() * problem.query.length() * problem.query.dim() : 0;
    Scratch& scratch = cache.scratch();
    scratch.reset(Scratch::round_up(angles) + Scratch::round_up(NormJoin::floats(heads, value_dim)) +
                  cache.heads() * head_floats);
    inputs_.angles = cache.rotates() ? turn(problem, cache, scratch.take(angles)) : nullptr;
    inputs_.norms = &norms_.emplace(problem.norms, heads, value_dim, scratch.take(NormJoin::floats(heads, value_dim)));
    heads_ = scratch.take(cache.heads() * head_floats);
  }

  const StepInputs& inputs() const { return inputs_; }
  float* head(std::int64_t index) const { return heads_ + index * head_floats_; }

 private:
  // The angles of the new tokens.
  static const float* turn(const StepProblem& problem, const RAttentionCache& cache, float* angles) {
    const std::int64_t dim = problem.query.dim();
    for (std::int64_t b = 0; b < problem.query.batch(); ++b) {
      const std::int64_t position = cache.lengths()[static_cast<std::size_t>(b)];
      for (std::int64_t i = 0; i < problem.count(b); ++i) {
        cache.angles(position + i, angles + (b * problem.query.length() + i) * dim);
      }
    }
    return angles;
  }

  StepInputs inputs_;
  std::optional<NormJoin> norms_;
  float* heads_ = nullptr;
  std::int64_t head_floats_;
};

// What a call reads of the cache.
std::int64_t bytes_read(const StepProblem& problem, const RAttentionCache& cache) {
  const std::int64_t head_bytes = cache.bytes() / std::max<std::int64_t>(1, cache.heads());
  return cache.heads() * head_bytes * problem.query.length();
}

void step_by_step(const StepProblem& problem, RAttentionCache& cache, const OutputView& output) {
  const CallMemory memory(problem, cache, HeadStep(problem, cache, output, {}).lay_out(nullptr));
  const auto run_head = [&](std::int64_t index) {
    HeadStep step(problem, cache, output, memory.inputs());
    step.lay_out(memory.head(index));
    step.run(index);
  };
  const std::int64_t heads = cache.heads();
  const Interrupts none(nullptr);  // the cache changes token by token
  if (bytes_read(problem, cache) >= kParallelBytes) {
    parallel_for(heads, [&run_head](std::int64_t index) { run_head(index); });
  } else {
    parallel_for(1, [&run_head, heads](std::int64_t) {
      for (std::int64_t index = 0; index < heads; ++index) run_head(index);
    });
  }
}

std::int64_t most_tokens(const StepProblem& problem) {
  std::int64_t most = 0;
  for (std::int64_t b = 0; b < problem.query.batch(); ++b) most = std::max(most, problem.count(b));
  return most;
}

}  // namespace

void rattention_step(const StepProblem& problem, RAttentionCache& cache, const OutputView& output) {
  check_step(problem, cache);
  clear_absent(problem, output);
  if (most_tokens(problem) >= kPrefillTokens) {
    rattention_prefill(problem, cache, output);
  } else {
    step_by_step(problem, cache, output);
  }
  for (std::int64_t b = 0; b < cache.config().batch; ++b) cache.advance(b, problem.count(b));
}

}  // namespace rattention
