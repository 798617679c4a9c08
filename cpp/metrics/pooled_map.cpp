#include "metrics/pooled_map.h"

#include <algorithm>

#include "core/threads.h"
#include "metrics/row_lse.h"

namespace rattention {
namespace {

// The map's rows that a task adds to, counted over batch, heads and bins: its first and last may be another's as well.
KeySpan map_rows(const ScoreProblem& problem, const Bins& rows, const Task& task) {
  const auto index = [&](const QueryBlock& block, std::int64_t row) {
    return (task.batch * problem.query.heads() + block.head) * rows.count() + rows.of(row);
  };
  const QueryBlock& end = task.blocks.back();
  return {index(task.blocks.front(), task.blocks.front().first), index(end, end.first + end.rows - 1) + 1};
}

// Adds the weights of a task's rows to the map. Rows that one bin holds are summed key by key before keys are pooled:
// sums across a vector then cost next to nothing.
class MapSums {
 public:
  // `edges` holds the task's first and last row of the map, [2][keys.count()].
  MapSums(const ScoreProblem& problem, const Bins& rows, const Bins& keys, const Task& task, const RowLse& lse,
          float* map, float* edges)
      : rows_(rows),
        keys_(keys),
        kernels_(tile_kernels()),
        lse_(lse),
        map_(map),
        edges_(edges),
        batch_(task.batch),
        first_head_(task.batch * problem.query.heads()),
        own_(map_rows(problem, rows, task)) {}

  void tile(KeySpan) {}

  void block(ScoreTile& tile, const QueryBlock& block) {
    std::int64_t last = 0;
    for (std::int64_t r = 0, bin = rows_.of(block.first); r < block.rows; r = last, ++bin) {
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
    for (std::int64_t r = first; r < last; ++r) {
      const KeySpan keys = lse_.to_weights(tile, batch_, block, r);
      if (!keys.empty()) kernels_.add(sums_ + (keys.first - seen.first), tile.scores_of(r), keys.size());
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

  const Bins& rows_;
  const Bins& keys_;
  const TileKernels& kernels_;
  const RowLse& lse_;
  float* map_;
  float* edges_;
  std::int64_t batch_;
  std::int64_t first_head_;  // of the batch entry, counted over the batch
  KeySpan own_;
  float sums_[kTileKeys] = {};
};

class SegmentMass {
 public:
  SegmentMass(const ScoreProblem& problem, const Bins& rows, const Bins& keys, const double* lse, float* map)
      : problem_(problem),
        rows_(rows),
        keys_(keys),
        plan_(problem, kPartBlocks),
        heads_(problem.query.batch() * problem.query.heads()),
        map_(map),
        lse_(problem, lse),
        edges_(static_cast<std::size_t>(plan_.count() * 2 * keys.count())) {}

  void run() {
    std::fill_n(map_, heads_ * rows_.count() * keys_.count(), 0.0F);
    // Under causality the last rows are the longest and should start first.
    parallel_for(plan_.count(), [this](std::int64_t turn) { sum(plan_.count() - 1 - turn); });
    for (std::int64_t index = 0; index < plan_.count(); ++index) join_edges(index);
  }

 private:
  void sum(std::int64_t index) {
    const Task task = plan_.task(index);
    lse_.prepare(task);
    MapSums sums(problem_, rows_, keys_, task, lse_, map_, edges_of(index));
    sweep_scores(problem_, narrowed(task, [this](const QueryBlock&) { return keys_.range(); }), sums);
  }

  // In the order of the plan, whoever computed them.
  void join_edges(std::int64_t index) {
    const KeySpan own = map_rows(problem_, rows_, plan_.task(index));
    const std::int64_t columns = keys_.count();
    tile_kernels().add(map_ + own.first * columns, edges_of(index), columns);
    if (own.size() > 1) tile_kernels().add(map_ + (own.last - 1) * columns, edges_of(index) + columns, columns);
  }

  float* edges_of(std::int64_t index) { return edges_.data() + index * 2 * keys_.count(); }

  const ScoreProblem& problem_;
  const Bins& rows_;
  const Bins& keys_;
  const TaskPlan plan_;
  const std::int64_t heads_;  // counted over the batch
  float* map_;
  RowLse lse_;
  std::vector<float> edges_;  // of every task: its first and last row of the map
};

}  // namespace

void segment_mass(const ScoreProblem& problem, const Bins& rows, const Bins& keys, const double* lse, float* mass) {
  SegmentMass(problem, rows, keys, lse, mass).run();
}

void pooled_map(const ScoreProblem& problem, const Bins& rows, const Bins& keys, const double* lse, float* map) {
  segment_mass(problem, rows, keys, lse, map);
  const std::int64_t heads = problem.query.batch() * problem.query.heads();
  parallel_for(heads * rows.count(), [&](std::int64_t row) {
    const std::int64_t height = rows.bin(row % rows.count()).size();
    float* means = map + row * keys.count();
    for (std::int64_t c = 0; c < keys.count(); ++c) means[c] /= static_cast<float>(height * keys.bin(c).size());
  });
}

}  // namespace rattention
