#include "softmax/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "core/numbers.h"
#include "core/threads.h"
#include "kernels/rows.h"
#include "softmax/bf16_operands.h"
#include "softmax/finished_row.h"
#include "softmax/key_parts.h"
#include "softmax/score_sweep.h"

namespace rattention {
namespace {

// One task of the forward pass: running maximum, denominator and unnormalised output of every row.
class ForwardTask {
 public:
  ForwardTask(const ScoreProblem& problem, const SoftmaxForward& want, const Task& task, TileOperands& operands,
              Scratch& scratch)
      : problem_(problem),
        want_(want),
        task_(task),
        kernels_(tile_kernels()),
        operands_(operands),
        columns_(TileOperands::columns(want.value)),
        in_place_(in_place(want)),
        output_(scratch.take(owns_rows(want) ? task.rows * columns_ : 0)),
        top_(scratch.take(task.rows)),
        total_(scratch.take(task.rows)),
        sees_(scratch.take(task.rows)),
        observer_(want.observer ? want.observer(task) : nullptr) {
    for (const QueryBlock& block : task.blocks) {
      std::fill_n(output_of(block, 0), block.rows * columns_, 0.0F);
    }
    std::fill(top_, top_ + task.rows, -kInfinity);
    std::fill(total_, total_ + task.rows, 0.0F);
    std::fill(sees_, sees_ + task.rows, 0.0F);
  }

  static std::int64_t floats(const SoftmaxForward& want, std::int64_t rows) {
    const std::int64_t own_rows = owns_rows(want) ? rows : 0;
    return Scratch::round_up(own_rows * TileOperands::columns(want.value)) + 3 * Scratch::round_up(rows);
  }

  void tile(KeySpan) { operands_.load_values(); }

  void block(ScoreTile& tile, const QueryBlock& block) {
    const std::int64_t step = operands_.rows_at_a_time();
    for (std::int64_t first = 0; first < block.rows; first += step) {
      group(tile, block, first, std::min(block.rows, first + step));
    }
  }

  // Divides by the denominators and writes out what is wanted; returns the finished rows, unless they are in place.
  float* finish() {
    for (const QueryBlock& block : task_.blocks) {
      for (std::int64_t r = 0; r < block.rows; ++r) finish(block, r);
    }
    return output_;
  }

 private:
  // Rows of whole vectors of float32 are summed where they are wanted.
  static bool in_place(const SoftmaxForward& want) {
    return want.output != nullptr && want.output->dtype == DType::f32 &&
           want.value->dim() == TileOperands::columns(want.value);
  }

  static bool owns_rows(const SoftmaxForward& want) { return !in_place(want) && want.partial == nullptr; }

  std::int64_t row_index(const QueryBlock& block, std::int64_t r) const {
    return (task_.batch * problem_.query.heads() + block.head) * problem_.row_count + block.first + r;
  }

  float* output_of(const QueryBlock& block, std::int64_t r) const {
    if (want_.partial != nullptr) return want_.partial->outputs + row_index(block, r) * columns_;
    if (!in_place_) return output_ + (block.slot + r) * columns_;
    return reinterpret_cast<float*>(want_.output->row(task_.batch, block.head, block.first + r));
  }

  // Rows [first, last) of the block, as many as the kernels take at a time: weights, then weights times values over the
  // keys that any of the rows sees.
  void group(ScoreTile& tile, const QueryBlock& block, std::int64_t first, std::int64_t last) {
    KeySpan keys;
    for (std::int64_t r = first; r < last; ++r) keys = keys.join(tile.keys_of(r));
    if (keys.empty()) return;
    keys = operands_.whole_steps(keys);
    for (std::int64_t r = first; r < last; ++r) {
      if (!tile.keys_of(r).empty()) weigh(tile, block, r);
      tile.clear_unseen(r, keys);
    }
    if (want_.value == nullptr) return;
    operands_.add_values(tile.row(first), last - first, keys, output_of(block, first));
    if (operands_.not_finite().empty()) return;
    for (std::int64_t r = first; r < last; ++r) add_not_finite(tile, block, r);
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
    const float rescale = rescales ? std::exp(before - top) : 1.0F;
    if (rescales && columns_ > 0) kernels_.scale(output_of(block, r), columns_, rescale);
    top_[slot] = top;
    if (tile.sees_some(r)) sees_[slot] = 1;
    const float previous = total_[slot];
    if (!observer_) {
      total_[slot] = previous * rescale + tile.to_weights_of(r, shift);
      return;
    }
    const RowSums sums = kernels_.exp_sums(scores, n, shift);
    total_[slot] = previous * rescale + sums.weight;
    observer_->add(slot, {tile.keys_of(r), scores, tile.visible_of(r), sums, previous, rescale,
                          rescales ? before - top : 0.0F, top > before});
  }

  // Weights times what is infinite or NaN, of the keys that are not hidden.
  void add_not_finite(ScoreTile& tile, const QueryBlock& block, std::int64_t r) {
    const KeySpan keys = tile.keys_of(r);
    const std::int32_t* shown = tile.shown_flags(task_.batch, block.head, problem_.query_row(block.first + r), keys);
    for (const std::int64_t key : operands_.not_finite()) {
      const bool outside = key < keys.first || key >= keys.last;
      if (outside || (shown != nullptr && shown[key - keys.first] == 0)) continue;
      operands_.add_not_finite(tile.weight_at(r, key), key, output_of(block, r));
    }
  }

  void finish(const QueryBlock& block, std::int64_t r) {
    const std::int64_t slot = block.slot + r;
    const std::int64_t row = block.first + r;
    RowTotals totals;
    totals.top = top_[slot];
    totals.left_out = problem_.discount_left_out(task_.batch, block.head, problem_.query_row(row));
    totals.total = total_[slot];
    totals.sees = sees_[slot] != 0;
    if (want_.partial != nullptr) {
      want_.partial->totals[row_index(block, r)] = totals;
      return;
    }
    const RowShare share =
        finish_row(problem_, want_, {task_.batch, block.head, row}, totals, output_of(block, r), in_place_);
    if (observer_) observer_->finish(slot, share.total, share.kept);
  }

  const ScoreProblem& problem_;
  const SoftmaxForward& want_;
  const Task& task_;
  const TileKernels& kernels_;
  TileOperands& operands_;
  const std::int64_t columns_;  // value_dim, rounded up to whole vectors
  const bool in_place_;
  float* output_;
  float* top_;    // largest score so far
  float* total_;  // sum of weights so far
  float* sees_;   // 1 where a row saw a key, whatever its score, else 0
  std::unique_ptr<RowObserver> observer_;
};

// Writes p = e^(score - lse) of each row.
struct RowWriter {
  const ScoreProblem& problem;
  const Task& task;
  const double* lse;
  float* weights;

  void tile(KeySpan) {}
  void block(ScoreTile& tile, const QueryBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const KeySpan keys = tile.keys_of(r);
      const std::int64_t row = (task.batch * problem.query.heads() + block.head) * problem.row_count + block.first + r;
      if (keys.empty() || lse[row] == -kInfinity) continue;
      tile.to_weights(task.batch, block, r, lse[row]);
      std::copy(tile.scores_of(r), tile.scores_of(r) + keys.size(),
                weights + row * problem.masks.key_length + keys.first);
    }
  }
};

template <typename Operands>
float* run_task(const ScoreProblem& problem, const SoftmaxForward& want, const Task& task) {
  Scratch& scratch = thread_scratch();
  scratch.reset(Operands::floats(problem, want.value, task.rows) + ScoreTile::floats(problem, task.rows) +
                ForwardTask::floats(want, task.rows));
  Operands operands(problem, want.value, task.rows, scratch);
  ScoreTile tile(problem, operands, task.rows, scratch);
  ForwardTask forward(problem, want, task, operands, scratch);
  sweep(task, tile, forward);
  return forward.finish();
}

// Whether nothing about the one row of a head depends on the head, nor on its position beyond the span of its keys.
bool heads_are_alike(const ScoreProblem& problem, const SoftmaxForward& want) {
  const Masks& masks = problem.masks;
  return problem.rows == nullptr && problem.query.length() == 1 && problem.rotary == nullptr && !want.observer &&
         problem.rule->product() == PairProduct::dot && !problem.rule->changes_products() &&
         problem.log_discount == nullptr && problem.relative_bias == nullptr && problem.sinks == nullptr &&
         !masks.varies_by_row() && !masks.within && !masks.blocks;
}

// How many query heads with the same keys become rows of one head: all, or fewer where threads would have no task.
std::int64_t heads_as_rows(const ScoreProblem& problem) {
  const std::int64_t heads = problem.query.batch() * problem.query.heads();
  if (heads == 0) return 1;
  std::int64_t rows = problem.group();
  while (rows > 1 && (problem.group() % rows != 0 || heads / rows < get_num_threads())) --rows;
  return rows;
}

// The problem with `rows` heads of one row each as that many rows of one head.
ScoreProblem with_heads_as_rows(const ScoreProblem& problem, std::int64_t rows) {
  ScoreProblem folded = problem;
  TensorView& query = folded.query;
  query.shape[1] /= rows;
  query.shape[2] = folded.row_count = rows;
  query.strides[2] = query.strides[1];
  query.strides[1] *= rows;
  folded.masks.of_all_rows = problem.masks.span(0, 0);
  return folded;
}

// Less than another thread takes to wake: some microseconds.
constexpr double kLittleWork = 1 << 17;

// Of both products, at most: masks may leave some out.
double multiply_adds(const ScoreProblem& problem, const SoftmaxForward& want) {
  const std::int64_t rows = problem.query.batch() * problem.query.heads() * problem.row_count;
  const std::int64_t columns = problem.query.dim() + (want.value != nullptr ? want.value->dim() : 0);
  return static_cast<double>(rows) * static_cast<double>(problem.key.length()) * static_cast<double>(columns);
}

void whole_rows(const ScoreProblem& problem, const SoftmaxForward& want) {
  const TaskPlan plan(problem);
  parallel_for(plan.count(), [&](std::int64_t index) { softmax_task(problem, want, plan.task(index)); });
}

// Observers see whole rows, and outputs do not depend on them.
void forward_tasks(const ScoreProblem& problem, const SoftmaxForward& want) {
  const KeySpan parts = key_parts(problem, want);
  if (parts.size() <= 1) return whole_rows(problem, want);
  if (want.observer) {
    SoftmaxForward observed;
    observed.observer = want.observer;
    whole_rows(problem, observed);
  }
  forward_by_key_parts(problem, want, parts);
}

}  // namespace

// Observers want to see float32 weights.
float* softmax_task(const ScoreProblem& problem, const SoftmaxForward& want, const Task& task) {
  if (!want.observer && Bf16Operands::possible(problem, want.value)) return run_task<Bf16Operands>(problem, want, task);
  return run_task<FloatOperands>(problem, want, task);
}

void softmax_forward(const ScoreProblem& problem, const SoftmaxForward& want) {
  const OneThread one(multiply_adds(problem, want) < kLittleWork);
  const std::int64_t rows = heads_are_alike(problem, want) ? heads_as_rows(problem) : 1;
  if (rows == 1) return forward_tasks(problem, want);
  const ScoreProblem folded = with_heads_as_rows(problem, rows);
  SoftmaxForward of_rows = want;
  const auto folded_output = [rows](const OutputView* view) {
    OutputView own = view != nullptr ? *view : OutputView{};
    own.shape[1] /= rows;
    own.shape[2] = rows;
    return own;
  };
  const OutputView output = folded_output(want.output);
  const OutputView rest = folded_output(want.output_rest);
  if (want.output != nullptr) of_rows.output = &output;
  if (want.output_rest != nullptr) of_rows.output_rest = &rest;
  forward_tasks(folded, of_rows);
}

void softmax_rows(const ScoreProblem& problem, const double* lse, float* weights) {
  const TaskPlan plan(problem);
  parallel_for(plan.count(), [&](std::int64_t index) {
    const Task task = plan.task(index);
    RowWriter writer{problem, task, lse, weights};
    sweep_scores(problem, task, writer);
  });
}

}  // namespace rattention
