#include "softmax/key_parts.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/numbers.h"
#include "core/threads.h"
#include "softmax/finished_row.h"
#include "softmax/tile_operands.h"

namespace rattention {
namespace {

// 2 MiB of keys and values at depth 64: some hundred times what a task costs beside its work.
constexpr std::int64_t kPartKeys = 4 * kTileKeys;

// Rows of all parts, [parts][batch, heads, row_count].
class PartRows {
 public:
  PartRows(const ScoreProblem& problem, const SoftmaxForward& want, KeySpan parts)
      : problem_(problem),
        want_(want),
        first_(parts.first),
        parts_(parts.size()),
        rows_(problem.query.batch() * problem.query.heads() * problem.row_count),
        columns_(TileOperands::columns(want.value)),
        outputs_(static_cast<std::size_t>(parts_ * rows_ * columns_)),
        totals_(static_cast<std::size_t>(parts_ * rows_)) {}

  void run() {
    const std::int64_t tasks = plan(problem_).count();
    parallel_for(tasks * parts_, [&](std::int64_t index) { run_part(index / parts_, index % parts_); });
    for (std::int64_t row = 0; row < rows_; ++row) join(row);
  }

 private:
  // A task for each key/value head, whatever the threads.
  static TaskPlan plan(const ScoreProblem& problem) { return {problem, kTaskBlocks}; }

  void run_part(std::int64_t task, std::int64_t part) {
    ScoreProblem problem = problem_;
    problem.masks.part = KeySpan{(first_ + part) * kPartKeys, (first_ + part + 1) * kPartKeys};
    const PartialRows partial{outputs_.data() + part * rows_ * columns_, totals_.data() + part * rows_};
    SoftmaxForward want;
    want.value = want_.value;
    want.partial = &partial;
    softmax_task(problem, want, plan(problem).task(task));
  }

  // Part by part in order; parts without weight add nothing.
  void join(std::int64_t row) {
    const auto totals_of = [&](std::int64_t part) { return totals_[static_cast<std::size_t>(part * rows_ + row)]; };
    RowTotals all;
    all.top = -kInfinity;
    for (std::int64_t part = 0; part < parts_; ++part) {
      const RowTotals& totals = totals_of(part);
      all.sees = all.sees || totals.sees;
      if (totals.total != 0 && !(totals.top + totals.left_out <= all.top)) all.top = totals.top + totals.left_out;
    }
    std::vector<float> output(static_cast<std::size_t>(columns_));
    for (std::int64_t part = 0; part < parts_; ++part) {
      const RowTotals& totals = totals_of(part);
      const double below = totals.top + totals.left_out - all.top;
      const float factor = totals.total == 0 ? 1.0F : static_cast<float>(std::exp(below));
      const float* sums = outputs_.data() + (part * rows_ + row) * columns_;
      for (std::int64_t d = 0; d < columns_; ++d) output[static_cast<std::size_t>(d)] += factor * sums[d];
      all.total += factor * totals.total;
    }
    const std::int64_t head = row / problem_.row_count;
    const std::int64_t heads = problem_.query.heads();
    finish_row(problem_, want_, {head / heads, head % heads, row % problem_.row_count}, all, output.data(), false);
  }

  const ScoreProblem& problem_;
  const SoftmaxForward& want_;
  const std::int64_t first_;
  const std::int64_t parts_;
  const std::int64_t rows_;
  const std::int64_t columns_;
  std::vector<float> outputs_;
  std::vector<RowTotals> totals_;
};

}  // namespace

KeySpan key_parts(const ScoreProblem& problem, const SoftmaxForward& want) {
  if (want.output == nullptr || problem.masks.key_length <= kPartKeys) return {};
  if (problem.key.heads() == 0 || !problem.few_rows()) return {};
  KeySpan all;
  bool cut = false;
  for (std::int64_t b = 0; b < problem.query.batch(); ++b) {
    for (std::int64_t r = 0; r < problem.row_count; ++r) {
      const KeySpan keys = problem.masks.span(b, problem.query_row(r));
      all = all.join(keys);
      cut = cut || keys.size() > kPartKeys;
    }
  }
  return cut ? KeySpan{all.first / kPartKeys, ceil_div(all.last, kPartKeys)} : KeySpan{};
}

void forward_by_key_parts(const ScoreProblem& problem, const SoftmaxForward& want, KeySpan parts) {
  PartRows(problem, want, parts).run();
}

}  // namespace rattention
