#include "metrics/pooled_map.h"

#include <algorithm>
#include <limits>

#include "core/threads.h"
#include "softmax/float_operands.h"
#include "softmax/softmax_attention.h"
#include "softmax/sweep.h"

namespace rattention {
namespace {

// Of a part of the rows. Bins that reach over parts are summed part by part, so parts must not depend on the threads.
constexpr std::int64_t kPartBlocks = 16;

// The map's rows that a task adds to, counted over batch, heads and bins: its first and last may be another's as well.
KeySpan map_rows(const ScoreProblem& problem, const Bins& rows, const Task& task) {
  const auto index = [&](const QueryBlock& block, std::int64_t row) {
    return (task.batch * problem.query.heads() + block.head) * rows.count() + rows.of(row);
  };
  const QueryBlock& end = task.blocks.back();
  return {index(task.blocks.front(), task.blocks.front().first), index(end, end.first + end.rows - 1) + 1};
}

Task within(const Task& task, KeySpan keys) {
  Task narrowed = task;
  narrowed.keys = {};
  for (QueryBlock& block : narrowed.blocks) {
    block.keys = block.keys.intersect(keys);
    narrowed.keys = narrowed.keys.join(block.keys);
  }
  return narrowed;
}

// Adds the weights of a task's rows to the map. Rows that one bin holds are summed key by key before keys are pooled:
// sums across a vector then cost next to nothing.
class MapSums {
 public:
  // `edges` holds the task's first and last row of the map, [2][keys.count()].
  MapSums(const ScoreProblem& problem, const Bins& rows, const Bins& keys, const Task& task, const double* lse,
          float* map, float* edges)
      : problem_(problem),
        rows_(rows),
        keys_(keys),
        kernels_(tile_kernels()),
        lse_(lse),
        map_(map),
        edges_(edges),
        first_head_(task.batch * problem.query.heads()),
        own_(map_rows(problem, rows, task)) {}

  void tile(KeySpan) {}

  void block(ScoreTile& tile, const QueryBlock& block) {
    std::int64_t last = 0;
    for (std::int64_t r = 0; r < block.rows; r = last) {
      const std::int64_t bin = rows_.of(block.first + r);
      last = std::min(block.rows, rows_.last(bin) - block.first);
      const KeySpan keys = sum_rows(tile, block, r, last);
      if (!keys.empty()) pool(keys, map_row((first_head_ + block.head) * rows_.count() + bin));
    }
  }

 private:
  // Column sums of the weights of rows [first, last) of the block, over the keys that any of them sees.
  KeySpan sum_rows(ScoreTile& tile, const QueryBlock& block, std::int64_t first, std::int64_t last) {
    KeySpan seen;
    for (std::int64_t r = first; r < last; ++r) seen = seen.join(tile.keys_of(r));
    std::fill_n(sums_, seen.size(), 0.0F);
    const double* lse = lse_ + (first_head_ + block.head) * problem_.row_count + block.first;
    for (std::int64_t r = first; r < last; ++r) {
      const KeySpan keys = tile.keys_of(r);
      if (keys.empty() || lse[r] == -std::numeric_limits<float>::infinity()) continue;
      tile.to_weights(first_head_ / problem_.query.heads(), block, r, lse[r]);
      kernels_.add(sums_ + (keys.first - seen.first), tile.scores_of(r), keys.size());
    }
    return seen;
  }

  void pool(KeySpan keys, float* map_row) const {
    if (keys_.count() == keys_.range().size()) {
      kernels_.add(map_row + (keys.first - keys_.range().first), sums_, keys.size());
      return;
    }
    std::int64_t last = 0;
    for (std::int64_t first = keys.first, bin = keys_.of(first); first < keys.last; first = last, ++bin) {
      last = std::min(keys.last, keys_.last(bin));
      map_row[bin] += kernels_.sum(sums_ + (first - keys.first), last - first);
    }
  }

  float* map_row(std::int64_t index) const {
    if (index == own_.first) return edges_;
    if (index == own_.last - 1) return edges_ + keys_.count();
    return map_ + index * keys_.count();
  }

  const ScoreProblem& problem_;
  const Bins& rows_;
  const Bins& keys_;
  const TileKernels& kernels_;
  const double* lse_;
  float* map_;
  float* edges_;
  std::int64_t first_head_;  // of the batch entry, counted over the batch
  KeySpan own_;
  float sums_[kTileKeys] = {};
};

class PooledMap {
 public:
  PooledMap(const ScoreProblem& problem, const Bins& rows, const Bins& keys, float* map)
      : problem_(problem),
        rows_(rows),
        keys_(keys),
        plan_(problem, kPartBlocks),
        heads_(problem.query.batch() * problem.query.heads()),
        map_(map),
        lse_(static_cast<std::size_t>(heads_ * problem.row_count)),
        edges_(static_cast<std::size_t>(plan_.count() * 2 * keys.count())) {}

  void run() {
    std::fill_n(map_, heads_ * rows_.count() * keys_.count(), 0.0F);
    // Under causality the last rows are the longest and should start first.
    parallel_for(plan_.count(), [this](std::int64_t turn) { sum(plan_.count() - 1 - turn); });
    for (std::int64_t index = 0; index < plan_.count(); ++index) join_edges(index);
    parallel_for(heads_ * rows_.count(), [this](std::int64_t row) { average(row); });
  }

 private:
  void sum(std::int64_t index) {
    const Task task = plan_.task(index);
    SoftmaxForward want;
    want.lse = lse_.data();
    softmax_task(problem_, want, task);
    Scratch& scratch = thread_scratch();
    scratch.reset(FloatOperands::floats(problem_, nullptr, task.rows) + ScoreTile::floats(problem_, task.rows));
    FloatOperands operands(problem_, nullptr, task.rows, scratch);
    ScoreTile tile(problem_, operands, task.rows, scratch);
    MapSums sums(problem_, rows_, keys_, task, lse_.data(), map_, edges_of(index));
    sweep(within(task, keys_.range()), tile, sums);
  }

  // In the order of the plan, whoever computed them.
  void join_edges(std::int64_t index) {
    const KeySpan own = map_rows(problem_, rows_, plan_.task(index));
    const std::int64_t columns = keys_.count();
    tile_kernels().add(map_ + own.first * columns, edges_of(index), columns);
    if (own.size() > 1) tile_kernels().add(map_ + (own.last - 1) * columns, edges_of(index) + columns, columns);
  }

  // Sums to means over all cells of a bin.
  void average(std::int64_t row) {
    const std::int64_t bin = row % rows_.count();
    const std::int64_t height = rows_.last(bin) - rows_.first(bin);
    float* means = map_ + row * keys_.count();
    for (std::int64_t c = 0; c < keys_.count(); ++c) {
      means[c] /= static_cast<float>(height * (keys_.last(c) - keys_.first(c)));
    }
  }

  float* edges_of(std::int64_t index) { return edges_.data() + index * 2 * keys_.count(); }

  const ScoreProblem& problem_;
  const Bins& rows_;
  const Bins& keys_;
  const TaskPlan plan_;
  const std::int64_t heads_;  // counted over the batch
  float* map_;
  std::vector<double> lse_;
  std::vector<float> edges_;  // of every task: its first and last row of the map
};

}  // namespace

Bins::Bins(KeySpan range, std::int64_t most) : range_(range) {
  const std::int64_t bins = std::min(most, range.size());
  for (std::int64_t bin = 0; bin <= bins; ++bin) {
    edges_.push_back(range.first + (bins > 0 ? bin * range.size() / bins : 0));
  }
}

void pooled_map(const ScoreProblem& problem, const Bins& rows, const Bins& keys, float* map) {
  PooledMap(problem, rows, keys, map).run();
}

}  // namespace rattention
