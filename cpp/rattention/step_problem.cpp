#include "rattention/step_problem.h"

#include <string>

#include "core/checks.h"
#include "softmax/checks.h"

namespace rattention {
namespace {

void check_extent(const char* name, const char* axis, std::int64_t came, std::int64_t wanted) {
  if (came == wanted) return;
  fail(std::string(name) + " has " + axis + " " + std::to_string(came) + ", the cache has " + std::to_string(wanted));
}

}  // namespace

void check_step(const StepProblem& problem, const RAttentionCache& cache) {
  const CacheConfig& config = cache.config();
  for (const TensorView* view : {&problem.query, &problem.key, &problem.value}) {
    if (view->dtype == config.dtype) continue;
    fail(std::string("query, key and value must be ") + name_of(config.dtype) + " as the cache is, got " +
         name_of(view->dtype));
  }
  check_query_and_key(problem.query, problem.key);
  check_value(problem.key, problem.value);
  check_extent("key", "batch", problem.key.batch(), config.batch);
  check_extent("key", "heads", problem.key.heads(), config.kv_heads);
  check_extent("key", "head_dim", problem.key.dim(), config.head_dim);
  check_extent("value", "value_dim", problem.value.dim(), config.value_dim);
  if (problem.query.length() != problem.key.length()) {
    fail("key has length " + std::to_string(problem.key.length()) + ", query has " +
         std::to_string(problem.query.length()) + "; a step takes as many of each");
  }
  for (std::int64_t b = 0; b < config.batch; ++b) {
    if (problem.count(b) < 0 || problem.count(b) > problem.query.length()) {
      fail("lengths holds " + std::to_string(problem.count(b)) + "; sequences have 0 to " +
           std::to_string(problem.query.length()) + " new tokens");
    }
    cache.check_room(b, problem.count(b));
  }
}

}  // namespace rattention
