#include "mechanisms/softmax_backward.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/pack.h"
#include "core/threads.h"
#include "mechanisms/tile_turns.h"

namespace rattention {
namespace {

// Three products and their accumulators share the cache here, so tiles are half as long as in the forward pass.
constexpr std::int64_t kBackwardKeys = 512;
// Fixed, because gradients of keys and values are summed part by part.
constexpr std::int64_t kPartBlocks = 40;

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
        tile_(problem, scratch, task.rows),
        queries_(scratch.take(task.rows * columns_)),
        grad_outputs_(scratch.take(task.rows * value_columns_)),
        grad_queries_(scratch.take(task.rows * columns_)),
        rows_(scratch.take(task.rows * kRowNumbers)),
        key_rows_(scratch.take(kBackwardKeys * columns_)),
        value_rows_(scratch.take(kBackwardKeys * value_columns_)),
        value_panels_(scratch.take((kBackwardKeys + kernels_.panel) * value_columns_)),
        grad_keys_(scratch.take(kBackwardKeys * columns_)),
        grad_values_(scratch.take(kBackwardKeys * value_columns_)),
        grad_masses_(scratch.take(problem.group() * kBackwardKeys)),
        pulls_(scratch.take(kBackwardKeys)),
        grad_scores_(scratch.take(kBlockRows * ScoreTile::kStride)),
        distances_(scratch.take(kBlockRows * ScoreTile::kStride)),
        maxima_(scratch.take(kBlockRows * kernels_.lanes)) {
    if (problem.gravity) tile_.keep_distances(distances_);
    std::fill_n(maxima_, kBlockRows * kernels_.lanes, 0.0F);  // of no use here, but read and written
  }

  static std::int64_t floats(const ScoreProblem& problem, const SoftmaxSaved& saved, std::int64_t rows) {
    const auto up = Scratch::round_up;
    const std::int64_t columns = padded(problem.query.dim());
    const std::int64_t value_columns = padded(saved.value.dim());
    return ScoreTile::floats(problem, rows) + 2 * up(rows * columns) + up(rows * value_columns) +
           up(rows * kRowNumbers) + 2 * up(kBackwardKeys * columns) + 2 * up(kBackwardKeys * value_columns) +
           up((kBackwardKeys + tile_kernels().panel) * value_columns) + up(problem.group() * kBackwardKeys) +
           up(kBackwardKeys) + 2 * up(kBlockRows * ScoreTile::kStride) + up(kBlockRows * tile_kernels().lanes);
  }

  void run() {
    for (const QueryBlock& block : task_.blocks) load_block(block);
    const std::int64_t first = task_.keys.first / kBackwardKeys;
    for (std::int64_t index = first; index * kBackwardKeys < task_.keys.last; ++index) {
      const std::int64_t start = index * kBackwardKeys;
      const KeySpan keys = task_.keys.intersect({start, start + kBackwardKeys});
      if (keys.empty()) continue;
      stop_if_asked();
      load_tile(keys);
      for (const QueryBlock& block : task_.blocks) {
        if (block.keys.intersect(keys).empty()) continue;
        tile_.score(task_.batch, block);
        add_block(block);
      }
      turns_.wait(task_, index);
      store_tile();
      store_masses();
      turns_.pass(task_, index);
    }
    for (const QueryBlock& block : task_.blocks) store_block(block);
  }

 private:
  // Numbers kept per row, side by side.
  enum RowNumber { kLse, kDelta, kPull, kField, kExponent, kDistance, kRowNumbers };

  float& number(const QueryBlock& block, std::int64_t r, RowNumber which) {
    return rows_[(block.slot + r) * kRowNumbers + which];
  }
  std::int64_t row_index(const QueryBlock& block, std::int64_t r) const {
    return (task_.batch * problem_.query.heads() + block.head) * problem_.row_count + block.first + r;
  }

  void load_block(const QueryBlock& block) {
    tile_.load_queries(task_.batch, block);
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const std::int64_t row = block.first + r;
      float* query = queries_ + (block.slot + r) * columns_;
      std::copy_n(tile_.queries_of(block) + r * dim_, dim_, query);
      std::fill(query + dim_, query + columns_, 0.0F);
      std::fill_n(grad_queries_ + (block.slot + r) * columns_, columns_, 0.0F);
      float* grad_output = grad_outputs_ + (block.slot + r) * value_columns_;
      load_row(saved_.output, task_.batch, block.head, row, value_rows_, value_columns_);
      load_row(saved_.grad_output, task_.batch, block.head, row, grad_output, value_columns_);
      const std::int64_t index = row_index(block, r);
      number(block, r, kLse) = saved_.lse[index];
      number(block, r, kDelta) = kernels_.dot(value_rows_, grad_output, value_dim_) -
                                 (saved_.grad_lse != nullptr ? saved_.grad_lse[index] : 0.0F);
      for (const RowNumber sum : {kPull, kField, kExponent, kDistance}) number(block, r, sum) = 0;
    }
  }

  void load_tile(KeySpan keys) {
    tile_.load_keys(task_.batch, task_.kv_head, keys);
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      load_row(problem_.key, task_.batch, task_.kv_head, keys.first + j, key_rows_ + j * columns_, columns_);
      if (problem_.rotary != nullptr) problem_.rotary->apply(key_rows_ + j * columns_, keys.first + j);
      load_row(saved_.value, task_.batch, task_.kv_head, keys.first + j, value_rows_ + j * value_columns_,
               value_columns_);
    }
    for (std::int64_t j = 0; j < keys.size(); j += kernels_.panel) {
      kernels_.pack_panel(value_rows_ + j * value_columns_, value_columns_, std::min(kernels_.panel, keys.size() - j),
                          value_columns_, value_panels_ + j * value_columns_);
    }
    keys_finite_ = kernels_.all_finite(key_rows_, keys.size() * columns_);
    std::fill_n(grad_keys_, keys.size() * columns_, 0.0F);
    std::fill_n(grad_values_, keys.size() * value_columns_, 0.0F);
    std::fill_n(grad_masses_, problem_.group() * kBackwardKeys, 0.0F);
    std::fill_n(pulls_, kBackwardKeys, 0.0F);
  }

  // Weights of the block, gradients of its scores, and the three products that spread them.
  void add_block(const QueryBlock& block) {
    KeySpan keys;
    for (std::int64_t r = 0; r < block.rows; ++r) keys = keys.join(tile_.keys_of(r));
    if (keys.empty()) return;
    const std::int64_t offset = keys.first - tile_.keys().first;
    weight_gradients(block, keys);
    for (std::int64_t r = 0; r < block.rows; ++r) finish_row(block, r, keys);
    if (!all_finite(block)) {
      add_carefully(block, keys);
      return;
    }
    kernels_.multiply_add({tile_.at(0, keys.first), ScoreTile::kStride, true}, keys.size(), block.rows,
                          grad_outputs_ + block.slot * value_columns_, value_columns_, value_columns_,
                          grad_values_ + offset * value_columns_, value_columns_);
    kernels_.multiply_add({grad_scores_ + offset, ScoreTile::kStride}, block.rows, keys.size(),
                          key_rows_ + offset * columns_, columns_, columns_, grad_queries_ + block.slot * columns_,
                          columns_);
    kernels_.multiply_add({grad_scores_ + offset, ScoreTile::kStride, true}, keys.size(), block.rows,
                          queries_ + block.slot * columns_, columns_, columns_, grad_keys_ + offset * columns_,
                          columns_);
  }

  // sum[columns] += factor * row
  void add_multiple(const float* factor, const float* row, std::int64_t columns, float* sum) const {
    kernels_.multiply_add({factor, 1}, 1, 1, row, columns, columns, sum, columns);
  }

  // dL/dp = grad_output . value, by panels.
  void weight_gradients(const QueryBlock& block, KeySpan keys) {
    const std::int64_t first = (keys.first - tile_.keys().first) / kernels_.panel * kernels_.panel;
    for (std::int64_t j = first; j < keys.last - tile_.keys().first; j += kernels_.panel) {
      kernels_.score_panel(grad_outputs_ + block.slot * value_columns_, block.rows, value_columns_,
                           value_panels_ + j * value_columns_, grad_scores_ + j, ScoreTile::kStride, maxima_);
    }
  }

  float* grad_scores_of(std::int64_t r, std::int64_t key) {
    return grad_scores_ + r * ScoreTile::kStride + (key - tile_.keys().first);
  }

  // Scores become weights and gradients of weights become gradients of scores; both are 0 where the row does not see a
  // key.
  void finish_row(const QueryBlock& block, std::int64_t r, KeySpan keys) {
    KeySpan seen = tile_.keys_of(r);
    const float lse = number(block, r, kLse);
    if (seen.empty() || lse == -std::numeric_limits<float>::infinity()) seen = {keys.last, keys.last};
    const std::int64_t n = seen.size();
    float* grad = grad_scores_of(r, seen.first);
    if (n > 0) {
      float* weights = tile_.scores_of(r);
      tile_.to_weights(r, lse);
      kernels_.score_gradient(grad, weights, n, number(block, r, kDelta));
      if (problem_.log_discount != nullptr) {
        const auto distance = static_cast<float>(seen.first - problem_.masks.position(block.first + r));
        number(block, r, kDistance) += kernels_.sum_distance(grad, n, distance);
      }
      if (problem_.gravity) add_gravity(block, r, seen, grad);
    }
    std::fill(tile_.at(r, keys.first), tile_.at(r, seen.first), 0.0F);
    std::fill(tile_.at(r, seen.last), tile_.at(r, keys.last), 0.0F);
    std::fill(grad_scores_of(r, keys.first), grad, 0.0F);
    std::fill(grad + n, grad_scores_of(r, keys.last), 0.0F);
  }

  void add_gravity(const QueryBlock& block, std::int64_t r, KeySpan seen, float* grad) {
    const TensorView& mass = problem_.gravity->query_mass;
    const float query_mass = load_element(mass.row(task_.batch, block.head, block.first + r), mass.dtype);
    const std::int64_t offset = seen.first - tile_.keys().first;
    const GravitySums sums = gravity_gradient(r, seen, grad, block.head, query_mass);
    kernels_.add(pulls_ + offset, grad, seen.size());
    number(block, r, kExponent) += sums.exponent;
    number(block, r, kField) += sums.field;
    number(block, r, kPull) += sums.pull;
  }

  GravitySums gravity_gradient(std::int64_t r, KeySpan seen, float* grad, std::int64_t head, float query_mass) {
    const Gravity& gravity = *problem_.gravity;
    const std::int64_t offset = seen.first - tile_.keys().first;
    const float* masses = tile_.masses() + offset;
    float* grad_masses = grad_masses_of(head) + offset;
    const float factor = gravity.strength[head] * query_mass;
    if (gravity.exponent == nullptr) {
      return kernels_.gravity_gradient(grad, tile_.distances_of(r), masses, seen.size(), factor, grad_masses);
    }
    const PowerLaw law{factor, gravity.exponent[head], gravity.eps};
    return kernels_.power_law_gradient(grad, tile_.distances_of(r), masses, seen.size(), law, grad_masses);
  }

  float* grad_masses_of(std::int64_t head) const {
    return grad_masses_ + (head - task_.kv_head * problem_.group()) * kBackwardKeys;
  }

  bool all_finite(const QueryBlock& block) const {
    return keys_finite_ && kernels_.all_finite(queries_ + block.slot * columns_, block.rows * columns_) &&
           kernels_.all_finite(grad_outputs_ + block.slot * value_columns_, block.rows * value_columns_);
  }

  // Pair by pair, leaving out what no gradient flows through: 0 * NaN would leak from hidden keys and rows.
  void add_carefully(const QueryBlock& block, KeySpan keys) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      for (std::int64_t key = keys.first; key < keys.last; ++key) {
        const float* weight = tile_.at(r, key);
        const float* grad = grad_scores_of(r, key);
        if (*weight == 0 && *grad == 0) continue;
        const std::int64_t j = key - tile_.keys().first;
        const std::int64_t slot = block.slot + r;
        add_multiple(weight, grad_outputs_ + slot * value_columns_, value_columns_, grad_values_ + j * value_columns_);
        add_multiple(grad, key_rows_ + j * columns_, columns_, grad_queries_ + slot * columns_);
        add_multiple(grad, queries_ + slot * columns_, columns_, grad_keys_ + j * columns_);
      }
    }
  }

  // Adds the part's share to the gradients of the tile's keys and values.
  void store_tile() {
    const KeySpan keys = tile_.keys();
    const std::int64_t head = task_.batch * problem_.key.heads() + task_.kv_head;
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      const std::int64_t row = head * problem_.key.length() + keys.first + j;
      float* grad_key = grad_keys_ + j * columns_;
      if (problem_.gravity) {
        const float* key = key_rows_ + j * columns_;
        for (std::int64_t d = 0; d < dim_; ++d) grad_key[d] = pulls_[j] * key[d] - grad_key[d];
      } else {
        kernels_.scale(grad_key, dim_, kLn2);  // queries carry log2(e)
      }
      if (problem_.rotary != nullptr) problem_.rotary->undo(grad_key, keys.first + j);
      kernels_.add(gradients_.key + row * dim_, grad_key, dim_);
      kernels_.add(gradients_.value + row * value_dim_, grad_values_ + j * value_columns_, value_dim_);
    }
  }

  void store_masses() {
    if (!problem_.gravity) return;
    const TensorView& mass = problem_.gravity->key_mass;
    const KeySpan keys = tile_.keys();
    for (std::int64_t g = 0; g < problem_.group(); ++g) {
      const std::int64_t head = task_.kv_head * problem_.group() + g;
      const std::int64_t row = task_.batch * mass.heads() + problem_.gravity->mass_head(head, problem_.query.heads());
      kernels_.add(gradients_.key_mass + row * mass.length() + keys.first, grad_masses_of(head), keys.size());
    }
  }

  void store_block(const QueryBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const std::int64_t index = row_index(block, r);
      float* grad = grad_queries_ + (block.slot + r) * columns_;
      if (problem_.gravity) {
        const float* query = queries_ + (block.slot + r) * columns_;
        const float pull = number(block, r, kPull);
        for (std::int64_t d = 0; d < dim_; ++d) grad[d] = pull * query[d] - grad[d];
        const TensorView& mass = problem_.gravity->query_mass;
        const float field = number(block, r, kField);
        gradients_.query_mass[index] = problem_.gravity->strength[block.head] * field;
        gradients_.strength[index] =
            load_element(mass.row(task_.batch, block.head, block.first + r), mass.dtype) * field;
        if (gradients_.exponent != nullptr) gradients_.exponent[index] = number(block, r, kExponent);
      } else {
        kernels_.scale(grad, dim_, problem_.scale);
      }
      if (problem_.rotary != nullptr) problem_.rotary->undo(grad, problem_.masks.position(block.first + r));
      std::copy_n(grad, dim_, gradients_.query + index * dim_);
      if (gradients_.log_discount != nullptr) gradients_.log_discount[index] = number(block, r, kDistance);
    }
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
  ScoreTile tile_;
  float* queries_;  // as the tile has them, rows of whole vectors
  float* grad_outputs_;
  float* grad_queries_;
  float* rows_;
  float* key_rows_;
  float* value_rows_;
  float* value_panels_;
  float* grad_keys_;
  float* grad_values_;
  float* grad_masses_;
  float* pulls_;  // per key: sum of w over rows
  float* grad_scores_;
  float* distances_;
  float* maxima_;
  bool keys_finite_ = true;
};

}  // namespace

void softmax_backward(const ScoreProblem& problem, const SoftmaxSaved& saved, const SoftmaxGradients& gradients) {
  const TaskPlan plan(problem, kPartBlocks);
  TileTurns turns(plan, kBackwardKeys, problem.masks.key_length);
  parallel_for(plan.count(), [&](std::int64_t index) {
    const Task task = plan.task(index);
    Scratch& scratch = thread_scratch();
    scratch.reset(BackwardTask::floats(problem, saved, task.rows));
    BackwardTask(problem, saved, gradients, task, turns, scratch).run();
  });
}

}  // namespace rattention
