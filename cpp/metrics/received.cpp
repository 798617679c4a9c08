#include "metrics/received.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/threads.h"
#include "softmax/float_operands.h"
#include "softmax/score_tile.h"

namespace rattention {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// How many rows of one query head may see each key of a tile.
class SeenRows {
 public:
  SeenRows(const ScoreProblem& problem, std::int64_t batch, std::int64_t head, KeySpan keys)
      : problem_(problem), batch_(batch), head_(head), keys_(keys) {}

  // By differences where a row sees its whole span, key by key where masks have holes.
  void add(std::int64_t row, KeySpan keys) {
    if (!problem_.masks.varies_by_row()) {
      ++starts_[keys.first - keys_.first];
      --starts_[keys.last - keys_.first];
      return;
    }
    problem_.masks.visible(batch_, head_, problem_.query_row(row), keys, flags_);
    for (std::int64_t j = 0; j < keys.size(); ++j) seen_[keys.first - keys_.first + j] -= flags_[j];
  }

  // Sums to means.
  void average(float* received) const {
    std::int64_t open = 0;
    for (std::int64_t j = 0; j < keys_.size(); ++j) {
      open += starts_[j];
      const std::int64_t rows = open + seen_[j];
      if (rows > 0) received[j] /= static_cast<float>(rows);
    }
  }

 private:
  const ScoreProblem& problem_;
  std::int64_t batch_;
  std::int64_t head_;
  KeySpan keys_;
  std::int64_t starts_[kTileKeys + 1] = {};
  std::int64_t seen_[kTileKeys] = {};
  std::int32_t flags_[kTileKeys] = {};
};

// One tile of keys of one query head: sums over all rows, in the order of the rows.
class ColumnTask {
 public:
  ColumnTask(const ScoreProblem& problem, std::int64_t batch, std::int64_t head, KeySpan keys, const double* lse)
      : problem_(problem), batch_(batch), head_(head), keys_(keys), lse_(lse), seen_(problem, batch, head, keys) {}

  void run(float* received) {
    Scratch& scratch = thread_scratch();
    scratch.reset(FloatOperands::floats(problem_, nullptr, kBlockRows) + ScoreTile::floats(problem_, kBlockRows));
    FloatOperands operands(problem_, nullptr, kBlockRows, scratch);
    ScoreTile tile(problem_, operands, kBlockRows, scratch);
    tile.load_keys(batch_, head_ / problem_.group(), keys_);
    for (std::int64_t first = 0; first < problem_.row_count; first += kBlockRows) {
      stop_if_asked();
      QueryBlock block{head_, first, std::min(kBlockRows, problem_.row_count - first), 0, 0, {}};
      if (!sees_keys(block)) continue;
      tile.load_queries(batch_, block);
      tile.score(batch_, block);
      for (std::int64_t r = 0; r < block.rows; ++r) add_row(tile, block, r, received);
    }
    seen_.average(received);
  }

 private:
  bool sees_keys(const QueryBlock& block) const {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      if (!problem_.masks.span(batch_, problem_.query_row(block.first + r)).intersect(keys_).empty()) return true;
    }
    return false;
  }

  void add_row(ScoreTile& tile, const QueryBlock& block, std::int64_t r, float* received) {
    const KeySpan keys = tile.keys_of(r);
    if (keys.empty()) return;
    seen_.add(block.first + r, keys);
    const double lse = lse_[(batch_ * problem_.query.heads() + head_) * problem_.row_count + block.first + r];
    if (lse == -std::numeric_limits<float>::infinity()) return;
    tile.to_weights(batch_, block, r, lse);
    tile_kernels().add(received + (keys.first - keys_.first), tile.scores_of(r), keys.size());
  }

  const ScoreProblem& problem_;
  std::int64_t batch_;
  std::int64_t head_;
  KeySpan keys_;
  const double* lse_;
  SeenRows seen_;
};

}  // namespace

void attention_received(const ScoreProblem& problem, const double* lse, float* received) {
  const std::int64_t length = problem.masks.key_length;
  const std::int64_t heads = problem.query.heads();
  const std::int64_t tiles = (length + kTileKeys - 1) / kTileKeys;
  std::fill(received, received + problem.query.batch() * heads * length, 0.0F);
  parallel_for(problem.query.batch() * heads * tiles, [&](std::int64_t index) {
    const std::int64_t head = index / tiles;  // counted over batch and heads
    const std::int64_t start = index % tiles * kTileKeys;
    const KeySpan keys{start, std::min(length, start + kTileKeys)};
    ColumnTask(problem, head / heads, head % heads, keys, lse).run(received + head * length + start);
  });
}

ReceivedInPassing::ReceivedInPassing(const ScoreProblem& problem)
    : problem_(problem),
      blocks_(problem.row_blocks()),
      stride_(padded(problem.masks.key_length) + tile_kernels().lanes),  // rows may begin within a vector
      sums_(static_cast<std::size_t>(problem.query.batch() * problem.query.heads() * blocks_ * stride_)) {}

void ReceivedInPassing::add(std::int64_t row, const RowWeights& weights) {
  const float total = weights.sums.weight;
  if (total == 0 && weights.visible == 0) return;
  if (!(total > 0)) {  // also where all scores are -inf
    const std::lock_guard<std::mutex> lock(mutex_);
    nan_rows_.push_back(row);
    return;
  }
  const float share = 1 / total;
  const std::int64_t n = padded(weights.keys.size());
  const std::int64_t block = row / problem_.row_count * blocks_ + row % problem_.row_count / kBlockRows;
  tile_kernels().multiply_add({&share, 1}, 1, 1, weights.weights, n, n,
                              sums_.data() + block * stride_ + weights.keys.first, n);
}

// NaN for all keys that such a row of the head may see.
void ReceivedInPassing::add_nan_rows(std::int64_t head, float* sum) const {
  const std::int64_t batch = head / problem_.query.heads();
  std::vector<std::int32_t> shown;
  std::vector<std::int32_t> unpadded;
  for (const std::int64_t row : nan_rows_) {
    if (row / problem_.row_count != head) continue;
    const std::int64_t query_row = problem_.query_row(row % problem_.row_count);
    const KeySpan keys = problem_.masks.span(batch, query_row);
    shown.assign(static_cast<std::size_t>(keys.size()), -1);
    unpadded = shown;
    if (problem_.masks.padding) problem_.masks.padded(batch, keys, unpadded.data());
    if (problem_.masks.varies_by_row()) {
      problem_.masks.visible(batch, head % problem_.query.heads(), query_row, keys, shown.data());
    }
    for (std::size_t j = 0; j < shown.size(); ++j) {
      if ((shown[j] & unpadded[j]) != 0) sum[keys.first + static_cast<std::int64_t>(j)] = kNaN;
    }
  }
}

void ReceivedInPassing::store(float* received) const {
  const std::int64_t heads = problem_.query.heads();
  const std::int64_t length = problem_.masks.key_length;
  std::fill_n(received, problem_.query.batch() * heads * length, 0.0F);
  parallel_for(problem_.query.batch() * heads, [&](std::int64_t head) {
    SeenRows seen(problem_, head / heads, head % heads, {0, length});
    for (std::int64_t r = 0; r < problem_.row_count; ++r) {
      if (r % kBlockRows == 0) stop_if_asked();
      const KeySpan keys = problem_.masks.span(head / heads, problem_.query_row(r));
      if (!keys.empty()) seen.add(r, keys);
    }
    float* sum = received + head * length;
    for (std::int64_t b = 0; b < blocks_; ++b) tile_kernels().add(sum, block_sums(head, b), length);
    add_nan_rows(head, sum);
    seen.average(sum);
  });
}

}  // namespace rattention
