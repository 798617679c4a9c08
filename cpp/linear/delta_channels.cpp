// Decay with a gate per key channel. Products of rows and keys cannot be separated from their decay without dividing by
// numbers that underflow, so rows are taken in blocks: keys before a block decay until its first row, rows since then;
// within a block keys decay step by step.
#include <algorithm>
#include <cmath>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"
#include "linear/delta_decay.h"
#include "linear/triangles.h"

namespace rattention::detail {
namespace {

class ChannelDecay : public ChunkDecay {
 public:
  ChannelDecay(const DeltaProblem& problem, Scratch& scratch)
      : ChunkDecay(problem, scratch),
        width_(problem.width()),
        block_(tile_kernels().block),
        steps_(scratch.take(kChunk * width_)),
        since_(scratch.take(kChunk * width_)),
        until_(scratch.take(kChunk * width_)),
        keys_(scratch.take(kChunk * width_)),
        panel_(scratch.take(width_ * kChunk)),
        rows_(scratch.take(block_ * width_)),
        pairs_(scratch.take(kChunk * width_)),
        own_{scratch.take(kChunk * width_), scratch.take(kChunk * width_), scratch.take(kChunk * width_)},
        factors_(scratch.take(width_)) {}
  static std::int64_t floats(const DeltaProblem& problem) {
    const std::int64_t width = problem.width();
    return 9 * Scratch::round_up(kChunk * width) + Scratch::round_up(tile_kernels().block * width) +
           Scratch::round_up(width) + own_floats(problem);
  }

  void load(std::int64_t batch, std::int64_t head, KeySpan rows) override {
    size_ = rows.size();
    first_ = problem_.log_gate + problem_.gate_at(batch * problem_.query.heads() + head, rows.first);
    for (std::int64_t i = 0; i < size_; ++i) load_gates(i, problem_.hidden(batch, rows.first + i));
    sum_gates();
    const TileKernels& kernels = tile_kernels();
    for (float* gates : {steps_, since_, until_}) kernels.exp(gates, size_ * width_, 0.0F);
  }

  void since_start(const float* rows, float* out) const override {
    row_kernels().product(rows, since_, size_ * width_, out);
  }
  void until_end(const float* rows, float* out) const override {
    row_kernels().product(rows, until_, size_ * width_, out);
  }

  void products(const float* queries, const float* keys, const float* /*panel*/, ChunkPairs pairs) override {
    std::fill_n(pairs.reads, size_ * kChunk, 0.0F);
    std::fill_n(pairs.ties, size_ * kChunk, 0.0F);
    for (std::int64_t first = 0; first < size_; first += block_) {
      if (first > 0) take_panel_to(keys, first);
      block_products(queries, keys, first, pairs.reads);
      if (problem_.corrects()) block_products(keys, keys, first, pairs.ties);
    }
    clear_upper(pairs.reads, size_, Diagonal::in);
    clear_upper(pairs.ties, size_, Diagonal::out);
  }

  void products_back(ChunkPairs /*pairs*/, ChunkPairs grads, const float* queries, const float* keys,
                     const RowGradients& gradients) override {
    const std::int64_t n = size_ * width_;
    for (float* own : {own_.queries, own_.reading_keys, own_.keys}) std::fill_n(own, n, 0.0F);
    take_diagonal(grads.reads, queries, keys, gradients);
    rows_back(grads, keys, own_);
    keys_back(grads, queries, keys, own_);
    for (std::int64_t i = 0; i < n; ++i) {
      pairs_[i] = queries[i] * own_.queries[i] + keys[i] * (own_.reading_keys[i] - own_.keys[i]);
    }
    row_kernels().sum(gradients.queries, own_.queries, n, gradients.queries);
    row_kernels().sum(gradients.reading_keys, own_.reading_keys, n, gradients.reading_keys);
    row_kernels().sum(gradients.keys, own_.keys, n, gradients.keys);
  }

  void store_gradient(const GateTerms& terms, float* gradient) override {
    const RowKernels& kernels = row_kernels();
    const std::int64_t dim = problem_.key.dim();
    // From the first token on what joins, from the last back what reads.
    std::copy_n(terms.passing, width_, factors_);
    for (std::int64_t i = 0; i < size_; ++i) {
      float* joining = terms.joining + i * width_;
      kernels.sum(factors_, joining, width_, rows_);
      std::copy_n(factors_, width_, joining);
      std::copy_n(rows_, width_, factors_);
    }
    std::fill_n(factors_, width_, 0.0F);
    for (std::int64_t i = size_ - 1; i >= 0; --i) {
      kernels.sum(factors_, terms.reading + i * width_, width_, factors_);
      kernels.sum(factors_, pairs_ + i * width_, width_, factors_);
      const float* joining = terms.joining + i * width_;
      for (std::int64_t c = 0; c < dim; ++c) {
        gradient[i * dim + c] = first_[i * dim + c] > kLowestGate ? factors_[c] + joining[c] : 0.0F;
      }
    }
  }

 private:
  std::int64_t block_end(std::int64_t first) const { return std::min(size_, first + block_); }

  void load_gates(std::int64_t i, bool hidden) {
    float* row = steps_ + i * width_;
    std::fill_n(row, width_, 0.0F);
    if (hidden) return;
    const std::int64_t dim = problem_.key.dim();
    for (std::int64_t c = 0; c < dim; ++c) row[c] = std::max(first_[i * dim + c], kLowestGate);
  }

  // From the gates in steps_: their sums from the start and until the end, each from where it is small.
  void sum_gates() {
    std::copy_n(steps_, width_, since_);
    for (std::int64_t i = 1; i < size_; ++i) {
      row_kernels().sum(since_ + (i - 1) * width_, steps_ + i * width_, width_, since_ + i * width_);
    }
    std::fill_n(until_ + (size_ - 1) * width_, width_, 0.0F);
    for (std::int64_t i = size_ - 2; i >= 0; --i) {
      row_kernels().sum(until_ + (i + 1) * width_, steps_ + (i + 1) * width_, width_, until_ + i * width_);
    }
    const float* whole = since_ + (size_ - 1) * width_;
    std::copy_n(whole, width_, rates_);
    find_rates();
  }

  // factors_ = what decays after row `from` until row `to`, that one's own step included.
  void decay_between(std::int64_t from, std::int64_t to) {
    std::copy_n(steps_ + (from + 1) * width_, width_, factors_);
    for (std::int64_t i = from + 2; i <= to; ++i) {
      row_kernels().product(factors_, steps_ + i * width_, width_, factors_);
    }
  }

  // No gate lies between a row and its own key: their product is not to be found in the gates' gradients.
  void take_diagonal(float* grad, const float* queries, const float* keys, const RowGradients& gradients) const {
    for (std::int64_t i = 0; i < size_; ++i) {
      float* own = grad + i * kChunk + i;
      const LeftOperand one{own, 1};
      tile_kernels().multiply_add(one, 1, 1, keys + i * width_, width_, width_, gradients.queries + i * width_, width_);
      tile_kernels().multiply_add(one, 1, 1, queries + i * width_, width_, width_, gradients.keys + i * width_, width_);
      *own = 0.0F;
    }
  }

  // keys_[j] = keys of the block that ends at row `first`, decayed until that row.
  void decay_block(const float* keys, std::int64_t first) {
    for (std::int64_t j = first - 1; j >= first - block_; --j) {
      const float* step = steps_ + (j + 1) * width_;
      if (j + 1 == first) {
        std::copy_n(step, width_, factors_);
      } else {
        row_kernels().product(factors_, step, width_, factors_);
      }
      row_kernels().product(keys + j * width_, factors_, width_, keys_ + j * width_);
    }
  }

  // Of columns j < first: keys as they are once row `first` has decayed them.
  void take_panel_to(const float* keys, std::int64_t first) {
    const std::int64_t before = first - block_;
    const std::int64_t dim = problem_.key.dim();
    decay_between(before, first);
    row_kernels().scale_rows(panel_, factors_, before > 0 ? dim : 0, kChunk, panel_);
    decay_block(keys, first);
    for (std::int64_t j = before; j < first; ++j) {
      for (std::int64_t c = 0; c < dim; ++c) panel_[c * kChunk + j] = keys_[j * width_ + c];
    }
    const std::int64_t whole = padded(first);
    for (std::int64_t c = 0; c < dim; ++c) std::fill(panel_ + c * kChunk + first, panel_ + c * kChunk + whole, 0.0F);
  }

  // rows_ = rows of the block, decayed since its first row.
  void decay_rows(const float* rows, std::int64_t first) {
    std::copy_n(rows + first * width_, width_, rows_);
    for (std::int64_t i = first + 1; i < block_end(first); ++i) {
      const float* step = steps_ + i * width_;
      if (i == first + 1) {
        std::copy_n(step, width_, factors_);
      } else {
        row_kernels().product(factors_, step, width_, factors_);
      }
      row_kernels().product(rows + i * width_, factors_, width_, rows_ + (i - first) * width_);
    }
  }

  void block_products(const float* rows, const float* keys, std::int64_t first, float* c) {
    const std::int64_t n = block_end(first) - first;
    float* block = c + first * kChunk;
    if (first > 0) {
      decay_rows(rows, first);
      tile_kernels().multiply_add({rows_, width_}, n, problem_.key.dim(), panel_, kChunk, padded(first), block, kChunk);
    }
    const std::int64_t at = first * width_;
    row_kernels().decayed_products(rows + at, keys + at, steps_ + at, n, width_, block + first, kChunk);
  }

  // Gradients of the rows that read, from the first block to the last, as keys decay.
  void rows_back(ChunkPairs grads, const float* keys, const RowGradients& gradients) {
    for (std::int64_t first = block_; first < size_; first += block_) {
      decay_between(first - block_, first);
      row_kernels().multiply_rows(keys_, factors_, first - block_, width_, keys_);
      decay_block(keys, first);
      const FiniteRows seen(keys_, first, width_);
      add_block_back(grads.reads, first, seen, gradients.queries);
      if (problem_.corrects()) add_block_back(grads.ties, first, seen, gradients.reading_keys);
    }
  }

  void add_block_back(const float* grad, std::int64_t first, const FiniteRows& seen, float* grad_rows) {
    const std::int64_t n = block_end(first) - first;
    std::fill_n(rows_, n * width_, 0.0F);
    tile_kernels().multiply_add({grad + first * kChunk, kChunk}, n, first, seen.data, width_, width_, rows_, width_);
    for (std::int64_t i = 0; i < n; ++i) {
      float* row = rows_ + i * width_;
      if (i == 1) std::copy_n(steps_ + (first + 1) * width_, width_, factors_);
      if (i > 1) row_kernels().product(factors_, steps_ + (first + i) * width_, width_, factors_);
      if (i > 0) row_kernels().product(row, factors_, width_, row);
      float* own = grad_rows + (first + i) * width_;
      row_kernels().sum(own, row, width_, own);
    }
  }

  // Gradients of the keys that are read, from the last block to the first: keys_ has what later rows give to each, as
  // of the first row of the block behind.
  void keys_back(ChunkPairs grads, const float* queries, const float* keys, const RowGradients& gradients) {
    std::fill_n(keys_, size_ * width_, 0.0F);
    for (std::int64_t first = (size_ - 1) / block_ * block_; first >= 0; first -= block_) {
      if (first + block_ < size_) give_to_block(first, gradients.keys);
      const std::int64_t at = first * width_;
      const std::int64_t n = block_end(first) - first;
      const std::int64_t pair = first * kChunk + first;
      row_kernels().decayed_products_back(grads.reads + pair, kChunk, queries + at, keys + at, steps_ + at, n, width_,
                                          gradients.queries + at, gradients.keys + at);
      if (first > 0) gather_from(grads.reads, queries, first);
      if (!problem_.corrects()) continue;
      row_kernels().decayed_products_back(grads.ties + pair, kChunk, keys + at, keys + at, steps_ + at, n, width_,
                                          gradients.reading_keys + at, gradients.keys + at);
      if (first > 0) gather_from(grads.ties, keys, first);
    }
  }

  void gather_from(const float* grad, const float* rows, std::int64_t first) {
    decay_rows(rows, first);
    tile_kernels().multiply_add({grad + first * kChunk, kChunk, true}, first, block_end(first) - first, rows_, width_,
                                width_, keys_, width_);
  }

  // The block's own keys receive what later rows give; for those before it that decays until the block's first row.
  void give_to_block(std::int64_t first, float* grad_keys) {
    const std::int64_t next = first + block_;
    for (std::int64_t j = next - 1; j >= first; --j) {
      const float* step = steps_ + (j + 1) * width_;
      if (j + 1 == next) {
        std::copy_n(step, width_, factors_);
      } else {
        row_kernels().product(factors_, step, width_, factors_);
      }
      float* given = keys_ + j * width_;
      row_kernels().product(given, factors_, width_, given);
      row_kernels().sum(grad_keys + j * width_, given, width_, grad_keys + j * width_);
    }
    row_kernels().multiply_rows(keys_, factors_, first, width_, keys_);
  }

  const std::int64_t width_;
  const std::int64_t block_;
  const float* first_ = nullptr;
  float* steps_;  // [n][width]: decay of each token
  float* since_;  // since the chunk began
  float* until_;  // until it ends
  float* keys_;   // keys, or their gradients, as of the first row of a block
  float* panel_;  // such keys in columns
  float* rows_;   // rows of a block, decayed since its first
  float* pairs_;  // gradients of the sums of log gates, from products of rows and keys
  RowGradients own_;
  float* factors_;
};

}  // namespace

std::unique_ptr<ChunkDecay> decay_of_channels(const DeltaProblem& problem, Scratch& scratch) {
  return std::make_unique<ChannelDecay>(problem, scratch);
}

std::int64_t channel_decay_floats(const DeltaProblem& problem) { return ChannelDecay::floats(problem); }

}  // namespace rattention::detail
