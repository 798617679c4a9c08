#include "mechanisms/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "core/pack.h"
#include "core/threads.h"

namespace rattention {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One task of the forward pass: running maximum, denominator and unnormalised output of every row.
class ForwardTask {
 public:
  ForwardTask(const ScoreProblem& problem, const SoftmaxForward& want, const Task& task, Scratch& scratch)
      : problem_(problem),
        want_(want),
        task_(task),
        kernels_(tile_kernels()),
        columns_(columns(want)),
        in_place_(in_place(want)),
        values_(scratch.take(kTileKeys * columns_)),
        output_(scratch.take(in_place_ ? 0 : task.rows * columns_)),
        top_(scratch.take(task.rows)),
        total_(scratch.take(task.rows)),
        observer_(want.observers != nullptr ? want.observers->make() : nullptr) {
    for (const QueryBlock& block : task.blocks) {
      std::fill_n(output_of(block, 0), block.rows * columns_, 0.0F);
    }
    std::fill(top_, top_ + task.rows, -kInfinity);
    std::fill(total_, total_ + task.rows, 0.0F);
    if (observer_) observer_->begin(task);
  }

  static std::int64_t floats(const SoftmaxForward& want, std::int64_t rows) {
    return Scratch::round_up(kTileKeys * columns(want)) + Scratch::round_up(in_place(want) ? 0 : rows * columns(want)) +
           2 * Scratch::round_up(rows);
  }

  void tile(KeySpan span) {
    keys_ = span;
    if (want_.value == nullptr) return;
    load_values(span);
    values_finite_ = true;
    for (std::int64_t j = 0; j < span.size() && values_finite_; ++j) {
      values_finite_ = kernels_.all_finite(tile_values_ + j * value_stride_, columns_);
    }
  }

  void block(ScoreTile& tile, const QueryBlock& block) {
    for (std::int64_t first = 0; first < block.rows; first += kernels_.block) {
      group(tile, block, first, std::min(block.rows, first + kernels_.block));
    }
  }

  // Divides by the denominators and writes out what is wanted; returns the finished rows, unless they are in place.
  float* finish() {
    for (const QueryBlock& block : task_.blocks) {
      for (std::int64_t r = 0; r < block.rows; ++r) finish_row(block, r);
    }
    return output_;
  }

 private:
  static std::int64_t columns(const SoftmaxForward& want) {
    return want.value == nullptr ? 0 : padded(want.value->dim());
  }

  // Rows of whole vectors of float32 are summed where they are wanted.
  static bool in_place(const SoftmaxForward& want) {
    return want.output != nullptr && want.output->dtype == DType::f32 && want.value->dim() == columns(want);
  }

  float* output_of(const QueryBlock& block, std::int64_t r) const {
    if (!in_place_) return output_ + (block.slot + r) * columns_;
    return reinterpret_cast<float*>(want_.output->row(task_.batch, block.head, block.first + r));
  }

  // Rows that are whole, aligned vectors of float32 are used where they lie; a load across two cache lines costs two.
  void load_values(KeySpan span) {
    const float* rows = float_rows(*want_.value, task_.batch, task_.kv_head, &value_stride_);
    if (rows != nullptr && want_.value->dim() == columns_ && on_vector(rows) && value_stride_ % kernels_.lanes == 0) {
      tile_values_ = rows + span.first * value_stride_;
      return;
    }
    tile_values_ = values_;
    value_stride_ = columns_;
    for (std::int64_t j = 0; j < span.size(); ++j) {
      load_row(*want_.value, task_.batch, task_.kv_head, span.first + j, values_ + j * columns_, columns_);
    }
  }

  bool on_vector(const float* p) const {
    return reinterpret_cast<std::uintptr_t>(p) % (static_cast<std::size_t>(kernels_.lanes) * sizeof(float)) == 0;
  }

  const float* values_at(std::int64_t key) const { return tile_values_ + (key - keys_.first) * value_stride_; }

  // Rows [first, last) of the block, as many as the kernels take at a time: weights, then weights times values over the
  // keys that any of the rows sees.
  void group(ScoreTile& tile, const QueryBlock& block, std::int64_t first, std::int64_t last) {
    KeySpan keys;
    for (std::int64_t r = first; r < last; ++r) keys = keys.join(tile.keys_of(r));
    if (keys.empty()) return;
    for (std::int64_t r = first; r < last; ++r) {
      const KeySpan seen = tile.keys_of(r);
      if (!seen.empty()) weigh(tile, block, r);
      const KeySpan shown = seen.empty() ? KeySpan{keys.last, keys.last} : seen;
      std::fill(tile.at(r, keys.first), tile.at(r, shown.first), 0.0F);
      std::fill(tile.at(r, shown.last), tile.at(r, keys.last), 0.0F);
    }
    if (want_.value == nullptr) return;
    if (!values_finite_) {
      for (std::int64_t r = first; r < last; ++r) accumulate_visible(tile, block, r);
      return;
    }
    kernels_.multiply_add({tile.at(first, keys.first), ScoreTile::kStride}, last - first, keys.size(),
                          values_at(keys.first), value_stride_, columns_, output_of(block, first), columns_);
  }

  // Online softmax of one row: scores become weights relative to the new maximum, what came before is rescaled.
  void weigh(ScoreTile& tile, const QueryBlock& block, std::int64_t r) {
    const std::int64_t slot = block.slot + r;
    const std::int64_t n = tile.keys_of(r).size();
    float* scores = tile.scores_of(r);
    const float before = top_[slot];
    const float top = std::max(before, tile.max_of(r));
    // Nothing but -inf so far: any finite shift gives weights 0 (or NaN where a score is NaN).
    const float shift = top == -kInfinity ? 0.0F : top;
    const bool rescales = before != -kInfinity && top > before;
    const float rescale = rescales ? std::exp2(before - top) : 1.0F;
    if (rescales && columns_ > 0) kernels_.scale(output_of(block, r), columns_, rescale);
    top_[slot] = top;
    const float previous = total_[slot];
    if (!observer_) {
      total_[slot] = previous * rescale + kernels_.exp2(scores, n, shift);
      return;
    }
    const RowSums sums = kernels_.exp2_sums(scores, n, shift);
    total_[slot] = previous * rescale + sums.weight;
    observer_->add(slot, {tile.keys_of(r), scores, tile.visible_of(r), sums, previous, rescale,
                          rescales ? before - top : 0.0F, top > before});
  }

  // Weights times values key by key, leaving out hidden keys: 0 * NaN would leak them.
  void accumulate_visible(ScoreTile& tile, const QueryBlock& block, std::int64_t r) {
    const KeySpan keys = tile.keys_of(r);
    const std::int64_t query_row = problem_.query_row(block.first + r);
    std::int32_t shown[kTileKeys];
    std::int32_t unpadded[kTileKeys];
    problem_.masks.visible(task_.batch, block.head, query_row, keys, shown);
    if (problem_.masks.padding) {
      problem_.masks.padded(task_.batch, keys, unpadded);
    } else {
      std::fill(unpadded, unpadded + keys.size(), -1);
    }
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      if ((shown[j] & unpadded[j]) == 0) continue;
      kernels_.multiply_add({tile.scores_of(r) + j, 1}, 1, 1, values_at(keys.first + j), value_stride_, columns_,
                            output_of(block, r), columns_);
    }
  }

  void finish_row(const QueryBlock& block, std::int64_t r) {
    const std::int64_t slot = block.slot + r;
    const std::int64_t row = block.first + r;
    const float total = total_[slot];
    if (want_.lse != nullptr) {
      const std::int64_t index = (task_.batch * problem_.query.heads() + block.head) * problem_.row_count + row;
      want_.lse[index] = total == 0 ? -kInfinity : (top_[slot] + std::log2(total)) * kLn2;
    }
    float* output = output_of(block, r);
    if (total != 0) kernels_.scale(output, columns_, 1 / total);
    if (want_.output != nullptr && !in_place_) {
      store_row(output, want_.value->dim(), want_.output->row(task_.batch, block.head, row), want_.output->dtype);
    }
    if (observer_) observer_->finish(slot, total);
  }

  const ScoreProblem& problem_;
  const SoftmaxForward& want_;
  const Task& task_;
  const TileKernels& kernels_;
  const std::int64_t columns_;  // value_dim, rounded up to whole vectors
  const bool in_place_;
  float* values_;  // converted copies, where needed
  const float* tile_values_ = nullptr;
  std::int64_t value_stride_ = 0;
  float* output_;
  float* top_;    // largest score so far, in units of log2
  float* total_;  // sum of weights so far
  std::unique_ptr<RowObserver> observer_;
  KeySpan keys_;
  bool values_finite_ = true;
};

// Writes p = 2^(score - lse) of each row.
struct RowWriter {
  const ScoreProblem& problem;
  const Task& task;
  const float* lse;
  float* weights;

  void tile(KeySpan) {}
  void block(ScoreTile& tile, const QueryBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const KeySpan keys = tile.keys_of(r);
      const std::int64_t row = (task.batch * problem.query.heads() + block.head) * problem.row_count + block.first + r;
      if (keys.empty() || lse[row] == -kInfinity) continue;
      tile.to_weights(r, lse[row]);
      std::copy(tile.scores_of(r), tile.scores_of(r) + keys.size(),
                weights + row * problem.masks.key_length + keys.first);
    }
  }
};

}  // namespace

float* softmax_task(const ScoreProblem& problem, const SoftmaxForward& want, const Task& task) {
  Scratch& scratch = thread_scratch();
  scratch.reset(ScoreTile::floats(problem, task.rows) + ForwardTask::floats(want, task.rows));
  ScoreTile tile(problem, scratch, task.rows);
  ForwardTask forward(problem, want, task, scratch);
  sweep(task, tile, forward);
  return forward.finish();
}

void softmax_forward(const ScoreProblem& problem, const SoftmaxForward& want) {
  const TaskPlan plan(problem);
  parallel_for(plan.count(), [&](std::int64_t index) { softmax_task(problem, want, plan.task(index)); });
}

void softmax_rows(const ScoreProblem& problem, const float* lse, float* weights) {
  const TaskPlan plan(problem);
  parallel_for(plan.count(), [&](std::int64_t index) {
    const Task task = plan.task(index);
    Scratch& scratch = thread_scratch();
    scratch.reset(ScoreTile::floats(problem, task.rows));
    ScoreTile tile(problem, scratch, task.rows);
    RowWriter writer{problem, task, lse, weights};
    sweep(task, tile, writer);
  });
}

}  // namespace rattention
