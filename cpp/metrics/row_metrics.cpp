#include "metrics/row_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/threads.h"
#include "metrics/visible_keys.h"

namespace rattention {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Sums over the weights seen so far, relative to the largest score so far.
struct RowState {
  std::int64_t index = 0;  // of the row in the outputs
  std::int64_t position = 0;
  std::int64_t visible = 0;
  std::int64_t visible_far = 0;
  bool own_visible = false;
  ContextQuarters quarters;
  std::int64_t max_position = -1;
  float score = 0;  // sum w * (s - top)
  float local = 0;
  float far = 0;
  float context_mean = 0;
  float context_deviations = 0;  // sum (w - context_mean)^2
  std::int64_t context_seen = 0;
  float near_quarter = 0;
  float far_quarter = 0;
};

KeySpan around(std::int64_t position, std::int64_t distance) {
  // A distance beyond any array's length is unlimited; capping it keeps the sums from overflowing.
  const std::int64_t capped = std::min<std::int64_t>(distance, std::int64_t{1} << 60);
  return {position - capped, position + capped + 1};
}

// Weights of one tile, summed over ranges of keys.
class TileMass {
 public:
  TileMass(const RowWeights& row) : row_(row), kernels_(tile_kernels()) {}

  float inside(KeySpan range) const {
    const KeySpan common = range.intersect(row_.keys);
    if (common.empty()) return 0;
    if (common.size() == row_.keys.size()) return row_.sums.weight;
    return kernels_.sum(row_.weights + (common.first - row_.keys.first), common.size());
  }

  float outside(KeySpan range) const {
    return inside({row_.keys.first, std::min(range.first, row_.keys.last)}) +
           inside({std::max(range.last, row_.keys.first), row_.keys.last});
  }

 private:
  const RowWeights& row_;
  const TileKernels& kernels_;
};

class RowMetricsObserver : public RowObserver {
 public:
  RowMetricsObserver(const ScoreProblem& problem, MetricDistances distances, RowMetricOutputs outputs,
                     ReceivedInPassing* received, const Task& task)
      : problem_(problem),
        distances_(distances),
        outputs_(outputs),
        received_(received),
        rows_(static_cast<std::size_t>(task.rows)) {
    VisibleKeysOfBatch keys(problem_.masks, task.batch);
    for (const QueryBlock& block : task.blocks) {
      stop_if_asked();
      for (std::int64_t r = 0; r < block.rows; ++r) {
        const std::int64_t row = block.first + r;
        RowState& state = at(block.slot + r);
        state.index = (task.batch * problem_.query.heads() + block.head) * problem_.row_count + row;
        look_at(keys.row(block.head, problem_.query_row(row)), problem_.masks.position(problem_.query_row(row)), state);
      }
    }
  }

  void add(std::int64_t slot, const RowWeights& row) override {
    RowState& state = at(slot);
    if (received_ != nullptr) received_->add(state.index, row);
    rescale(row, state);
    if (row.new_top) state.max_position = row.keys.first + tile_kernels().find(row.weights, row.keys.size(), 1.0F);
    state.score += row.sums.score;
    const TileMass mass(row);
    state.local += mass.inside(around(state.position, distances_.local_radius));
    state.far += mass.outside(around(state.position, distances_.long_range_distance));
    if (state.quarters.size > 0) {
      state.near_quarter += mass.inside({state.quarters.near.first, state.position}) +
                            mass.inside({state.position + 1, state.quarters.near.last});
      state.far_quarter += mass.outside(state.quarters.close);
    }
    add_context(row, state);
  }

  void finish(std::int64_t slot, float denominator, float kept) override {
    const RowState& state = at(slot);
    const std::int64_t i = state.index;
    const bool empty = denominator == 0 || kept == 0;
    const float share = empty ? 0 : kept / denominator;
    outputs_.entropy[i] = empty ? 0 : at_least_zero(kept * std::log(denominator / kept) - state.score * share);
    outputs_.local_concentration[i] = state.local * share;
    outputs_.long_range[i] = state.far * share;
    outputs_.max_weight[i] = share;
    outputs_.max_position[i] = state.max_position;
    outputs_.context_mean[i] = state.context_mean * share;
    const auto context = static_cast<float>(std::max<std::int64_t>(state.context_seen, 1));
    outputs_.context_std[i] = std::sqrt(at_least_zero(state.context_deviations / context)) * share;
    outputs_.recent_distant_ratio[i] = state.quarters.size > 0 ? state.near_quarter / state.far_quarter : kNaN;
    outputs_.retention[i] = empty ? 0 : retention(state);
  }

 private:
  RowState& at(std::int64_t slot) { return rows_[static_cast<std::size_t>(slot)]; }

  // Rounding may take a sum just below zero; NaN stays NaN.
  static float at_least_zero(float x) { return x < 0 ? 0 : x; }

  void look_at(const VisibleKeys& keys, std::int64_t position, RowState& state) const {
    state.position = position;
    state.visible = keys.count();
    state.visible_far = state.visible - keys.count(around(position, distances_.long_range_distance));
    state.own_visible = keys.contains(position);
    state.quarters = context_quarters(keys, position, problem_.masks.key_length);
  }

  // e^(s - top) shrinks by `rescale` when the top rises, and s - top falls by the rise.
  static void rescale(const RowWeights& row, RowState& state) {
    if (row.rescale == 1) return;
    state.score = row.rescale * (state.score + row.shift_change * row.previous);
    for (float* sum : {&state.local, &state.far, &state.context_mean, &state.near_quarter, &state.far_quarter}) {
      *sum *= row.rescale;
    }
    state.context_deviations *= row.rescale * row.rescale;
  }

  // Mean and deviations of the tile's context, joined to those so far (Chan, Golub and LeVeque 1983): sums of squares
  // would cancel. Hidden weights are 0 and so, meanwhile, is the row's own; context keys whose weight is 0 are counted
  // apart.
  static void add_context(const RowWeights& row, RowState& state) {
    const bool has_own = state.position >= row.keys.first && state.position < row.keys.last;
    float outside = 0;
    float& own = has_own ? row.weights[state.position - row.keys.first] : outside;
    const float kept = own;
    own = 0;
    const std::int64_t n = row.visible - (has_own && state.own_visible ? 1 : 0);
    if (n > 0) {
      const TileKernels& kernels = tile_kernels();
      const float mean =
          (has_own ? kernels.sum(row.weights, row.keys.size()) : row.sums.weight) / static_cast<float>(n);
      const Deviations found = kernels.deviations(row.weights, row.keys.size(), mean);
      join(mean, found.squares + (static_cast<float>(n) - found.nonzero) * mean * mean, n, state);
    }
    own = kept;
  }

  static void join(float mean, float deviations, std::int64_t n, RowState& state) {
    const auto before = static_cast<float>(state.context_seen);
    state.context_seen += n;
    const float share = static_cast<float>(n) / static_cast<float>(state.context_seen);
    const float difference = mean - state.context_mean;
    state.context_mean += difference * share;
    state.context_deviations += deviations + difference * difference * before * share;
  }

  float retention(const RowState& state) const {
    const std::int64_t i = state.index;
    const auto bounded = [](float x) { return x > 1 ? 1.0F : at_least_zero(x); };
    float sum = bounded(1 - outputs_.local_concentration[i]);
    float terms = 1;
    if (state.visible > 1) {
      sum += bounded(outputs_.entropy[i] / std::log(static_cast<float>(state.visible)));
      ++terms;
    }
    if (state.visible_far > 0) {
      const float share = static_cast<float>(state.visible_far) / static_cast<float>(state.visible);
      sum += bounded(outputs_.long_range[i] / share);
      ++terms;
    }
    return sum / terms;
  }

  const ScoreProblem& problem_;
  MetricDistances distances_;
  RowMetricOutputs outputs_;
  ReceivedInPassing* received_;
  std::vector<RowState> rows_;
};

}  // namespace

MakeRowObserver row_metrics(const ScoreProblem& problem, MetricDistances distances, RowMetricOutputs outputs,
                            ReceivedInPassing* received) {
  return [&problem, distances, outputs, received](const Task& task) {
    return std::make_unique<RowMetricsObserver>(problem, distances, outputs, received, task);
  };
}

}  // namespace rattention
