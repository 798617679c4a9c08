#include "metrics/top_keys.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/threads.h"
#include "metrics/row_lse.h"

namespace rattention {
namespace {

bool ranks_above(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// The largest weights of one row so far, in order.
class RowTop {
 public:
  RowTop(std::int64_t count, std::int64_t* kept, std::int64_t* keys, float* weights)
      : count_(count), kept_(*kept), keys_(keys), weights_(weights) {}

  bool full() const { return kept_ == count_; }
  float least() const { return weights_[count_ - 1]; }

  // Keys come in ascending order, so that the first of equal weights stays before the others.
  void offer(float weight, std::int64_t key) {
    const std::int64_t at = std::upper_bound(weights_, weights_ + kept_, weight, ranks_above) - weights_;
    if (at == count_) return;
    const std::int64_t moved = std::min(kept_, count_ - 1);
    std::copy_backward(weights_ + at, weights_ + moved, weights_ + moved + 1);
    std::copy_backward(keys_ + at, keys_ + moved, keys_ + moved + 1);
    weights_[at] = weight;
    keys_[at] = key;
    kept_ = moved + 1;
  }

 private:
  const std::int64_t count_;
  std::int64_t& kept_;
  std::int64_t* keys_;
  float* weights_;
};

class TopVisitor {
 public:
  TopVisitor(const ScoreProblem& problem, const Task& task, const RowLse& lse, TopKeys top)
      : problem_(problem), batch_(task.batch), lse_(lse), top_(top), kept_(static_cast<std::size_t>(task.rows)) {}

  void tile(KeySpan) {}

  void block(ScoreTile& tile, const QueryBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const KeySpan keys = lse_.to_weights(tile, batch_, block, r);
      if (keys.empty()) continue;
      RowTop row = top_of(block, r);
      const std::int64_t next = row.full() ? 0 : fill(tile, block, r, keys, row);
      if (row.full()) compare(tile.scores_of(r), keys, next, row);
    }
  }

 private:
  RowTop top_of(const QueryBlock& block, std::int64_t r) {
    const std::int64_t row = (batch_ * problem_.query.heads() + block.head) * problem_.row_count + block.first + r;
    std::int64_t* kept = &kept_[static_cast<std::size_t>(block.slot + r)];
    return {top_.count, kept, top_.keys + row * top_.count, top_.weights + row * top_.count};
  }

  // Until the row is full it takes every key that is not hidden, also those whose weight is 0. Returns how many keys
  // were looked at.
  std::int64_t fill(ScoreTile& tile, const QueryBlock& block, std::int64_t r, KeySpan keys, RowTop& row) const {
    const std::int32_t* shown = tile.shown_flags(batch_, block.head, problem_.query_row(block.first + r), keys);
    const float* weights = tile.scores_of(r);
    std::int64_t j = 0;
    for (; j < keys.size() && !row.full(); ++j) {
      if (shown == nullptr || shown[j] != 0) row.offer(weights[j], keys.first + j);
    }
    return j;
  }

  // The keys from number `next` on, of which most are too light: hidden ones weigh 0.
  void compare(const float* weights, KeySpan keys, std::int64_t next, RowTop& row) const {
    const TileKernels& kernels = tile_kernels();
    while (!std::isnan(row.least())) {
      next += kernels.find_above(weights + next, keys.size() - next, row.least());
      if (next >= keys.size()) return;
      row.offer(weights[next], keys.first + next);
      ++next;
    }
  }

  const ScoreProblem& problem_;
  std::int64_t batch_;
  const RowLse& lse_;
  TopKeys top_;
  std::vector<std::int64_t> kept_;  // of every row of the task
};

}  // namespace

void top_keys(const ScoreProblem& problem, const double* lse, TopKeys top) {
  const std::int64_t numbers = problem.query.batch() * problem.query.heads() * problem.row_count * top.count;
  std::fill_n(top.keys, numbers, -1);
  std::fill_n(top.weights, numbers, 0.0F);
  RowLse of_rows(problem, lse);
  const TaskPlan plan(problem);
  parallel_for(plan.count(), [&](std::int64_t index) {
    const Task task = plan.task(index);
    of_rows.prepare(task);
    TopVisitor visitor(problem, task, of_rows, top);
    sweep_scores(problem, task, visitor);
  });
}

}  // namespace rattention
