#include "metrics/distance_mass.h"

#include <algorithm>
#include <vector>

#include "core/threads.h"
#include "metrics/row_lse.h"
#include "metrics/visible_keys.h"

namespace rattention {
namespace {

// Sums of their own for so many runs of parts per key/value head, whatever the length: enough to go round.
constexpr std::int64_t kMostRuns = 32;

// Sums over the rows of the query heads of one key/value head.
struct HeadSums {
  std::vector<double> mass;          // [group][bins]
  std::vector<std::int64_t> seeing;  // [group], rows that may see some key
};

class DistanceVisitor {
 public:
  DistanceVisitor(const ScoreProblem& problem, const Bins& distances, const Task& task, const RowLse& lse,
                  HeadSums* sums)
      : problem_(problem),
        distances_(distances),
        batch_(task.batch),
        first_head_(task.kv_head * problem.group()),
        lse_(lse),
        mass_(sums->mass.data()) {}

  void tile(KeySpan) {}

  void block(ScoreTile& tile, const QueryBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const KeySpan keys = lse_.to_weights(tile, batch_, block, r);
      if (keys.empty()) continue;
      const std::int64_t position = problem_.masks.position(problem_.query_row(block.first + r));
      double* mass = mass_ + (block.head - first_head_) * distances_.count();
      add_from(position, keys, tile.scores_of(r), mass);
      add_before(position, keys, tile.scores_of(r), mass);
    }
  }

 private:
  // Keys at the position and after it.
  void add_from(std::int64_t position, KeySpan keys, const float* weights, double* mass) const {
    const KeySpan after{std::max(keys.first, position), keys.last};
    add({after.first - position, after.last - position}, mass,
        [&](KeySpan distances) { return sum(weights + (position + distances.first - keys.first), distances.size()); });
  }

  void add_before(std::int64_t position, KeySpan keys, const float* weights, double* mass) const {
    const KeySpan before{keys.first, std::min(keys.last, position)};
    add({position - before.last + 1, position - before.first + 1}, mass, [&](KeySpan distances) {
      return sum(weights + (position - distances.last + 1 - keys.first), distances.size());
    });
  }

  // sum_of(distances) for the part of each bin within `range`.
  template <typename SumOf>
  void add(KeySpan range, double* mass, SumOf sum_of) const {
    const KeySpan binned = range.intersect(distances_.range());
    if (binned.empty()) return;
    for (std::int64_t bin = distances_.of(binned.first); bin < distances_.count(); ++bin) {
      const KeySpan part = distances_.bin(bin).intersect(binned);
      if (part.empty()) return;
      mass[bin] += sum_of(part);
    }
  }

  static double sum(const float* weights, std::int64_t n) { return tile_kernels().sum(weights, n); }

  const ScoreProblem& problem_;
  const Bins& distances_;
  std::int64_t batch_;
  std::int64_t first_head_;
  const RowLse& lse_;
  double* mass_;
};

class DistanceMass {
 public:
  DistanceMass(const ScoreProblem& problem, const Bins& distances, const double* lse)
      : problem_(problem),
        distances_(distances),
        lse_(problem, lse),
        plan_(problem, kPartBlocks),
        runs_(std::min(plan_.parts(), kMostRuns)),
        sums_(static_cast<std::size_t>(plan_.heads() * runs_)) {}

  void run(float* mass) {
    const std::int64_t heads = problem_.query.batch() * problem_.query.heads();
    std::fill_n(mass, heads * distances_.count(), 0.0F);
    // Under causality the last rows are the longest and should start first.
    const std::int64_t runs = plan_.heads() * runs_;
    parallel_for(runs, [&](std::int64_t turn) { sum_parts(runs - 1 - turn); });
    parallel_for(runs > 0 ? heads : 0, [&](std::int64_t head) { average(head, mass + head * distances_.count()); });
  }

 private:
  void sum_parts(std::int64_t index) {
    const std::int64_t run = index / plan_.heads();
    const std::int64_t kv_index = index % plan_.heads();
    HeadSums& sums = sums_[static_cast<std::size_t>(index)];
    sums.mass.assign(static_cast<std::size_t>(problem_.group() * distances_.count()), 0);
    sums.seeing.assign(static_cast<std::size_t>(problem_.group()), 0);
    VisibleKeysOfBatch visible(problem_.masks, kv_index / problem_.key.heads());
    for (std::int64_t p = run * plan_.parts() / runs_; p < (run + 1) * plan_.parts() / runs_; ++p) {
      add_part(plan_.task(p * plan_.heads() + kv_index), &visible, &sums);
    }
  }

  void add_part(const Task& task, VisibleKeysOfBatch* visible, HeadSums* sums) {
    for (const QueryBlock& block : task.blocks) {
      std::int64_t& seeing = sums->seeing[static_cast<std::size_t>(block.head - task.kv_head * problem_.group())];
      for (std::int64_t r = 0; r < block.rows; ++r) {
        if (visible->row(block.head, problem_.query_row(block.first + r)).count() > 0) ++seeing;
      }
    }
    lse_.prepare(task);
    DistanceVisitor visitor(problem_, distances_, task, lse_, sums);
    sweep_scores(problem_, narrowed(task, [this](const QueryBlock& block) { return within_reach(block); }), visitor);
  }

  KeySpan within_reach(const QueryBlock& block) const {
    const std::int64_t reach = distances_.range().last;
    const std::int64_t first = problem_.masks.position(problem_.query_row(block.first));
    return {first - reach + 1, first + block.rows - 1 + reach};
  }

  // In the order of the rows, whoever computed them.
  void average(std::int64_t head, float* mass) const {
    const std::int64_t own = head % problem_.group();
    std::vector<double> total(static_cast<std::size_t>(distances_.count()));
    std::int64_t rows = 0;
    for (std::int64_t run = 0; run < runs_; ++run) {
      const HeadSums& sums = sums_[static_cast<std::size_t>(run * plan_.heads() + head / problem_.group())];
      rows += sums.seeing[static_cast<std::size_t>(own)];
      const double* of_head = sums.mass.data() + own * distances_.count();
      for (std::size_t bin = 0; bin < total.size(); ++bin) total[bin] += of_head[bin];
    }
    const auto count = static_cast<double>(std::max<std::int64_t>(rows, 1));
    for (std::size_t bin = 0; bin < total.size(); ++bin) mass[bin] = static_cast<float>(total[bin] / count);
  }

  const ScoreProblem& problem_;
  const Bins& distances_;
  RowLse lse_;
  const TaskPlan plan_;
  const std::int64_t runs_;  // per key/value head
  std::vector<HeadSums> sums_;
};

}  // namespace

void distance_mass(const ScoreProblem& problem, const Bins& distances, const double* lse, float* mass) {
  DistanceMass(problem, distances, lse).run(mass);
}

}  // namespace rattention
