#include "metrics/received.h"

#include <algorithm>
#include <limits>

#include "core/threads.h"

namespace rattention {
namespace {

// One tile of keys of one query head: sums over all rows, in the order of the rows.
class ColumnTask {
 public:
  ColumnTask(const ScoreProblem& problem, std::int64_t batch, std::int64_t head, KeySpan keys, const float* lse)
      : problem_(problem), batch_(batch), head_(head), keys_(keys), lse_(lse) {}

  void run(float* received) {
    Scratch& scratch = thread_scratch();
    scratch.reset(ScoreTile::floats(problem_, kBlockRows));
    ScoreTile tile(problem_, scratch, kBlockRows);
    tile.load_keys(batch_, head_ / problem_.group(), keys_);
    for (std::int64_t first = 0; first < problem_.row_count; first += kBlockRows) {
      QueryBlock block{head_, first, std::min(kBlockRows, problem_.row_count - first), 0, {}};
      if (!sees_keys(block)) continue;
      tile.load_queries(batch_, block);
      tile.score(batch_, block);
      for (std::int64_t r = 0; r < block.rows; ++r) add_row(tile, block, r, received);
    }
    average(received);
  }

 private:
  bool sees_keys(const QueryBlock& block) const {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      if (!problem_.masks.span(problem_.query_row(block.first + r)).intersect(keys_).empty()) return true;
    }
    return false;
  }

  void add_row(ScoreTile& tile, const QueryBlock& block, std::int64_t r, float* received) {
    const KeySpan keys = tile.keys_of(r);
    if (keys.empty()) return;
    count(block.first + r, keys);
    const float lse = lse_[(batch_ * problem_.query.heads() + head_) * problem_.row_count + block.first + r];
    if (lse == -std::numeric_limits<float>::infinity()) return;
    tile.to_weights(r, lse);
    tile_kernels().add(received + (keys.first - keys_.first), tile.scores_of(r), keys.size());
  }

  // Rows that may see a key: by differences where a row sees its whole span, key by key where masks have holes.
  void count(std::int64_t row, KeySpan keys) {
    if (!problem_.masks.varies_by_row()) {
      ++starts_[keys.first - keys_.first];
      --starts_[keys.last - keys_.first];
      return;
    }
    problem_.masks.visible(batch_, head_, problem_.query_row(row), keys, lanes_);
    for (std::int64_t j = 0; j < keys.size(); ++j) seen_[keys.first - keys_.first + j] -= lanes_[j];
  }

  void average(float* received) {
    std::int64_t open = 0;
    for (std::int64_t j = 0; j < keys_.size(); ++j) {
      open += starts_[j];
      const std::int64_t rows = open + seen_[j];
      if (rows > 0) received[j] /= static_cast<float>(rows);
    }
  }

  const ScoreProblem& problem_;
  std::int64_t batch_;
  std::int64_t head_;
  KeySpan keys_;
  const float* lse_;
  std::int64_t starts_[kTileKeys + 1] = {};
  std::int64_t seen_[kTileKeys] = {};
  std::int32_t lanes_[kTileKeys] = {};
};

}  // namespace

void attention_received(const ScoreProblem& problem, const float* lse, float* received) {
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

}  // namespace rattention
