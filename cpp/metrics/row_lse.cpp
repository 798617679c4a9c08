#include "metrics/row_lse.h"

#include <limits>

namespace rattention {
namespace {

std::size_t rows_of(const ScoreProblem& problem) {
  return static_cast<std::size_t>(problem.query.batch() * problem.query.heads() * problem.row_count);
}

}  // namespace

RowLse::RowLse(const ScoreProblem& problem, const double* given)
    : problem_(problem), own_(given != nullptr ? 0 : rows_of(problem)), lse_(given != nullptr ? given : own_.data()) {}

void RowLse::prepare(const Task& task) {
  if (own_.empty()) return;
  SoftmaxForward want;
  want.lse = own_.data();
  softmax_task(problem_, want, task);
}

KeySpan RowLse::to_weights(ScoreTile& tile, std::int64_t batch, const QueryBlock& block, std::int64_t r) const {
  const KeySpan keys = tile.keys_of(r);
  const std::int64_t row = (batch * problem_.query.heads() + block.head) * problem_.row_count + block.first + r;
  if (keys.empty() || lse_[row] == -std::numeric_limits<double>::infinity()) return {};
  tile.to_weights(batch, block, r, lse_[row]);
  return keys;
}

}  // namespace rattention
