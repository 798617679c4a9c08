#include "softmax/softmax_backward.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/threads.h"
#include "kernels/rows.h"
#include "softmax/gradient_products.h"
#include "softmax/score_tile.h"
#include "softmax/tile_turns.h"

namespace rattention {
namespace {

// Blocks of query rows per part: from the shapes alone, because gradients of keys and values are summed part by part.
// Every part packs the keys and adds to their gradients, so that short ones pay only where heads are too few for
// threads.
std::int64_t part_blocks(const ScoreProblem& problem) {
  constexpr std::int64_t kMost = 40;
  constexpr std::int64_t kLeast = 8;
  constexpr std::int64_t kParts = 16;  // at least, where that leaves them long enough
  return std::clamp(problem.key.batch() * problem.query.heads() * problem.row_blocks() / kParts, kLeast, kMost);
}

// One part of the query rows of a key/value head: all of their own gradients, and their share of the keys' and values'.
class BackwardTask {
 public:
  BackwardTask(const ScoreProblem& problem, const SoftmaxSaved& saved, const SoftmaxGradients& gradients,
               const Task& task, TileTurns& turns, Scratch& scratch)
      : problem_(problem),
        saved_(saved),
        gradients_(gradients),
        task_(task),
        turns_(turns),
        kernels_(tile_kernels()),
        dim_(problem.query.dim()),
        columns_(padded(dim_)),
        value_dim_(saved.value.dim()),
        value_columns_(padded(value_dim_)),
        queries_(scratch.take(task.rows * columns_)),
        grad_outputs_(scratch.take(task.rows * value_columns_)),
        finite_(scratch.take(task.rows)),
        lse_(reinterpret_cast<double*>(scratch.take(2 * task.rows))),
        grad_queries_(scratch.take(task.rows * columns_)),
        rows_(scratch.take(task.rows * kRowNumbers)),
        key_rows_(scratch.take(kBackwardKeys * columns_)),
        staging_(scratch.take(columns_)),
        outputs_(scratch.take(2 * value_columns_)),
        grad_keys_(scratch.take(kBackwardKeys * columns_)),
        grad_values_(scratch.take(kBackwardKeys * value_columns_)),
        grad_scores_(scratch.take(kBlockRows * ScoreTile::kStride)),
        products_(GradientProducts::make(problem, saved, task, rows(), scratch)),
        tile_(problem, products_->operands(), task.rows, scratch, &gradients.rule) {}

  static std::int64_t floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task) {
    const auto up = Scratch::round_up;
    const std::int64_t rows = task.rows;
    const std::int64_t columns = padded(problem.query.dim());
    const std::int64_t value_columns = padded(saved.value.dim());
    return GradientProducts::floats(problem, saved, task) + ScoreTile::floats(problem, rows, true) +
           2 * up(rows * columns) + up(rows * value_columns) + up(rows) + up(2 * rows) + up(columns) +
           up(2 * value_columns) + up(rows * kRowNumbers) + 2 * up(kBackwardKeys * columns) +
           up(kBackwardKeys * value_columns) + up(kBlockRows * ScoreTile::kStride);
  }

  void run() {
    for (const QueryBlock& block : task_.blocks) load_block(block);
    const std::int64_t first = task_.keys.first / kBackwardKeys;
    for (std::int64_t index = first; index * kBackwardKeys < task_.keys.last; ++index) {
      const std::int64_t start = index * kBackwardKeys;
      const KeySpan span = task_.keys.intersect({start, start + kBackwardKeys});
      if (span.empty()) continue;
      const KeySpan keys = tile_.whole_panels(span);
      stop_if_asked();
      load_tile(keys);
      for (const QueryBlock& block : task_.blocks) {
        if (block.keys.intersect(keys).empty()) continue;
        tile_.score(task_.batch, block);
        add_block(block);
      }
      products_->finish_tile(keys.size());
      turns_.wait(task_, index);
      store_tile();
      turns_.pass(task_, index);
    }
    for (const QueryBlock& block : task_.blocks) store_block(block);
  }

 private:
  // Numbers kept per row, side by side.
  enum RowNumber { kDelta, kDistance, kRowNumbers };

  GradientRows rows() const {
    return {columns_,      value_columns_, queries_,   grad_outputs_, finite_,
            grad_queries_, key_rows_,      grad_keys_, grad_values_};
  }

  float& number(const QueryBlock& block, std::int64_t r, RowNumber which) {
    return rows_[(block.slot + r) * kRowNumbers + which];
  }
  bool row_finite(const QueryBlock& block, std::int64_t r) { return finite_[block.slot + r] != 0; }
  std::int64_t row_index(const QueryBlock& block, std::int64_t r) const {
    return (task_.batch * problem_.query.heads() + block.head) * problem_.row_count + block.first + r;
  }

  RuleRow rule_row(const QueryBlock& block, std::int64_t r) const {
    return {task_.batch, block.head, block.first + r, r, block.slot + r};
  }

  void load_block(const QueryBlock& block) {
    tile_.load_queries(task_.batch, block);
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const std::int64_t row = block.first + r;
      float* query = queries_ + (block.slot + r) * columns_;
      load_query(problem_, task_.batch, block.head, row, query, columns_);
      std::fill_n(grad_queries_ + (block.slot + r) * columns_, columns_, 0.0F);
      float* grad_output = grad_outputs_ + (block.slot + r) * value_columns_;
      load_row(saved_.output, task_.batch, block.head, row, outputs_, value_columns_);
      if (saved_.output_rest != nullptr) {
        load_row(*saved_.output_rest, task_.batch, block.head, row, outputs_ + value_columns_, value_columns_);
        kernels_.add(outputs_, outputs_ + value_columns_, value_dim_);
      }
      load_row(saved_.grad_output, task_.batch, block.head, row, grad_output, value_columns_);
      const std::int64_t index = row_index(block, r);
      lse_[block.slot + r] = saved_.lse[index];
      // As gradients of weights are in float32: where one key has all the weight, both are the same and cancel.
      number(block, r, kDelta) = kernels_.dot_in_order(outputs_, grad_output, value_dim_) -
                                 (saved_.grad_lse != nullptr ? saved_.grad_lse[index] : 0.0F);
      const bool finite = kernels_.all_finite(query, dim_) && kernels_.all_finite(grad_output, value_dim_);
      finite_[block.slot + r] = finite ? 1 : 0;
      number(block, r, kDistance) = 0;
    }
    products_->load_block(task_.batch, block);
  }

  void load_tile(KeySpan keys) {
    tile_.load_keys(task_.batch, task_.kv_head, keys);
    tile_.rule().begin_keys(task_.batch, task_.kv_head, keys);
    for (std::int64_t j = 0; j < keys.size(); ++j) load_key(keys.first + j, key_rows_ + j * columns_);
    take_out_not_finite_keys(keys);
    products_->load_tile(task_.batch, task_.kv_head, keys);
    std::fill_n(grad_keys_, keys.size() * columns_, 0.0F);
    std::fill_n(grad_values_, keys.size() * value_columns_, 0.0F);
  }

  void load_key(std::int64_t key, float* row) const {
    load_row(problem_.key, task_.batch, task_.kv_head, key, row, columns_);
    if (problem_.rotary != nullptr) problem_.rotary->apply(row, key);
  }

  // Sets keys that are not finite to 0: times a gradient of 0 they would reach rows that do not see them.
  void take_out_not_finite_keys(KeySpan keys) {
    keys_not_finite_.clear();
    if (kernels_.all_finite(key_rows_, keys.size() * columns_)) return;
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      float* row = key_rows_ + j * columns_;
      if (kernels_.all_finite(row, columns_)) continue;
      std::fill_n(row, columns_, 0.0F);
      keys_not_finite_.push_back(keys.first + j);
    }
  }

  // Weights of the block, gradients of its scores, and the three products that spread them.
  void add_block(const QueryBlock& block) {
    KeySpan seen;
    for (std::int64_t r = 0; r < block.rows; ++r) seen = seen.join(tile_.keys_of(r));
    if (seen.empty()) return;
    const std::int64_t first = tile_.keys().first;
    const KeySpan steps = products_->whole_steps({seen.first - first, seen.last - first});
    const KeySpan keys{first + steps.first, first + steps.last};
    products_->weight_gradients(block, steps, grad_scores_);
    for (std::int64_t r = 0; r < block.rows; ++r) finish_row(block, r, keys);
    products_->add(block, steps, tile_.row(0), grad_scores_);
    for (std::int64_t r = 0; r < block.rows; ++r) add_row_not_finite(block, r, seen);
    for (const std::int64_t key : keys_not_finite_) add_key_not_finite(block, key, seen);
  }

  // sum[columns] += factor * row
  void add_multiple(const float* factor, const float* row, std::int64_t columns, float* sum) const {
    kernels_.multiply_add({factor, 1}, 1, 1, row, columns, columns, sum, columns);
  }

  float* grad_scores_of(std::int64_t r, std::int64_t key) {
    return grad_scores_ + r * ScoreTile::kStride + (key - tile_.keys().first);
  }

  // Scores become weights and gradients of weights become gradients of scores; both are 0 where the row does not see a
  // key.
  void finish_row(const QueryBlock& block, std::int64_t r, KeySpan keys) {
    KeySpan seen = tile_.keys_of(r);
    const double lse = lse_[block.slot + r];
    if (seen.empty() || lse == -std::numeric_limits<float>::infinity()) seen = {keys.last, keys.last};
    const std::int64_t n = seen.size();
    float* grad = grad_scores_of(r, seen.first);
    if (n > 0) {
      float* weights = tile_.scores_of(r);
      tile_.to_weights(task_.batch, block, r, lse);
      kernels_.score_gradient(grad, weights, n, number(block, r, kDelta));
      if (problem_.log_discount != nullptr) {
        const auto distance = static_cast<float>(seen.first - problem_.distance_origin(task_.batch, block.first + r));
        number(block, r, kDistance) += kernels_.sum_distance(grad, n, distance);
      }
      store_bias_gradients(block, r, seen, grad);
      tile_.rule().to_factors(rule_row(block, r), seen, grad);
    }
    std::fill(tile_.at(r, keys.first), tile_.at(r, seen.first), 0.0F);
    std::fill(tile_.at(r, seen.last), tile_.at(r, keys.last), 0.0F);
    std::fill(grad_scores_of(r, keys.first), grad, 0.0F);
    std::fill(grad + n, grad_scores_of(r, keys.last), 0.0F);
  }

  void store_bias_gradients(const QueryBlock& block, std::int64_t r, KeySpan seen, const float* grad) {
    if (gradients_.relative_bias != nullptr) {
      const std::int64_t blocks = problem_.row_blocks();
      const std::int64_t head = task_.batch * problem_.query.heads() + block.head;
      const std::int64_t at = head * blocks + block.first / kBlockRows;
      problem_.relative_bias->add_gradient(grad, seen.first - problem_.masks.position(block.first + r), seen.size(),
                                           gradients_.relative_bias + at * problem_.relative_bias->entries());
    }
    if (gradients_.attn_mask != nullptr) {
      std::copy_n(grad, seen.size(),
                  gradients_.attn_mask + row_index(block, r) * problem_.masks.key_length + seen.first);
    }
  }

  // What a row that was taken out gives to the keys it sees, key by key.
  void add_row_not_finite(const QueryBlock& block, std::int64_t r, KeySpan keys) {
    if (row_finite(block, r)) return;
    const std::int64_t slot = block.slot + r;
    for (std::int64_t key = keys.first; key < keys.last; ++key) {
      const float* weight = tile_.at(r, key);
      const float* grad = grad_scores_of(r, key);
      if (*weight == 0 && *grad == 0) continue;
      const std::int64_t j = key - tile_.keys().first;
      add_multiple(weight, grad_outputs_ + slot * value_columns_, value_columns_, grad_values_ + j * value_columns_);
      add_multiple(grad, queries_ + slot * columns_, columns_, grad_keys_ + j * columns_);
    }
  }

  // What a key that was taken out gives to the rows that see it.
  void add_key_not_finite(const QueryBlock& block, std::int64_t key, KeySpan keys) {
    if (key < keys.first || key >= keys.last) return;
    load_key(key, staging_);
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const float* grad = grad_scores_of(r, key);
      if (*grad != 0) add_multiple(grad, staging_, columns_, grad_queries_ + (block.slot + r) * columns_);
    }
  }

  // Adds the part's share to the gradients of the tile's keys and values.
  void store_tile() {
    const KeySpan keys = tile_.keys();
    const std::int64_t head = task_.batch * problem_.key.heads() + task_.kv_head;
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      const std::int64_t row = head * problem_.key.length() + keys.first + j;
      float* grad_key = grad_keys_ + j * columns_;
      tile_.rule().finish_key(keys.first + j, key_rows_ + j * columns_, grad_key);
      if (problem_.rotary != nullptr) problem_.rotary->undo(grad_key, keys.first + j);
      kernels_.add(gradients_.key + row * dim_, grad_key, dim_);
      kernels_.add(gradients_.value + row * value_dim_, grad_values_ + j * value_columns_, value_dim_);
    }
    tile_.rule().store_keys();
  }

  void store_block(const QueryBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const std::int64_t index = row_index(block, r);
      float* grad = grad_queries_ + (block.slot + r) * columns_;
      tile_.rule().finish_query(rule_row(block, r), queries_ + (block.slot + r) * columns_, grad);
      if (problem_.rotary != nullptr) problem_.rotary->undo(grad, problem_.masks.position(block.first + r));
      std::copy_n(grad, dim_, gradients_.query + index * dim_);
      if (gradients_.log_discount != nullptr) gradients_.log_discount[index] = discount_gradient(block, r);
      if (gradients_.sinks != nullptr) gradients_.sinks[index] = sink_gradient(block, r);
    }
  }

  // A sink has no value: it moves the output through the weights that it takes from all keys.
  float sink_gradient(const QueryBlock& block, std::int64_t r) {
    const double weight = std::exp(problem_.sinks[block.head] - lse_[block.slot + r]);
    return static_cast<float>(-weight * number(block, r, kDelta));
  }

  // The distance that all keys of the row have in common moves lse alone.
  float discount_gradient(const QueryBlock& block, std::int64_t r) {
    const double of_lse = saved_.grad_lse != nullptr ? saved_.grad_lse[row_index(block, r)] : 0;
    return static_cast<float>(number(block, r, kDistance) +
                              of_lse * problem_.distance_left_out(task_.batch, block.first + r));
  }

  const ScoreProblem& problem_;
  const SoftmaxSaved& saved_;
  const SoftmaxGradients& gradients_;
  const Task& task_;
  TileTurns& turns_;
  const TileKernels& kernels_;
  const std::int64_t dim_;
  const std::int64_t columns_;
  const std::int64_t value_dim_;
  const std::int64_t value_columns_;
  float* queries_;  // times scale for dot products, rows of whole vectors
  float* grad_outputs_;
  float* finite_;  // per row, 0 where its query or its gradient is not
  double* lse_;
  float* grad_queries_;
  float* rows_;
  float* key_rows_;  // 0 where not finite
  float* staging_;
  float* outputs_;  // of a row, and its rest
  float* grad_keys_;
  float* grad_values_;
  float* grad_scores_;
  const std::unique_ptr<GradientProducts> products_;
  ScoreTile tile_;
  std::vector<std::int64_t> keys_not_finite_;  // of the tile
};

}  // namespace

void softmax_backward(const ScoreProblem& problem, const SoftmaxSaved& saved, const SoftmaxGradients& gradients) {
  const TaskPlan plan(problem, part_blocks(problem));
  TileTurns turns(plan, kBackwardKeys, problem.masks.key_length);
  parallel_for(plan.count(), [&](std::int64_t index) {
    const Task task = plan.task(index);
    Scratch& scratch = thread_scratch();
    scratch.reset(BackwardTask::floats(problem, saved, task));
    BackwardTask(problem, saved, gradients, task, turns, scratch).run();
  });
}

}  // namespace rattention
