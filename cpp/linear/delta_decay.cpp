#include "linear/delta_decay.h"

#include <algorithm>
#include <cmath>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"
#include "linear/triangles.h"

namespace rattention {
namespace {

// One gate per head and token: products are those without decay, times a matrix.
class HeadDecay : public ChunkDecay {
 public:
  HeadDecay(const DeltaProblem& problem, Scratch& scratch)
      : ChunkDecay(problem, scratch),
        since_(scratch.take(kChunk)),
        until_(scratch.take(kChunk)),
        between_(scratch.take(kChunk * kChunk)),
        staging_(scratch.take(kChunk * kChunk)),
        crossing_(scratch.take(kChunk)) {}
  static std::int64_t floats(const DeltaProblem& problem) {
    return own_floats(problem) + 3 * kChunk + 2 * kChunk * kChunk;
  }

  void load(std::int64_t batch, std::int64_t head, KeySpan rows) override {
    size_ = rows.size();
    first_ = problem_.log_gate + problem_.gate_at(batch * problem_.query.heads() + head, rows.first);
    // In double, because their differences count.
    double sums[kChunk];
    double sum = 0;
    for (std::int64_t i = 0; i < size_; ++i) {
      if (!problem_.hidden(batch, rows.first + i)) sum += static_cast<double>(std::max(first_[i], kLowestGate));
      sums[i] = sum;
    }
    const TileKernels& kernels = tile_kernels();
    for (std::int64_t i = 0; i < size_; ++i) {
      since_[i] = static_cast<float>(sums[i]);
      until_[i] = static_cast<float>(sum - sums[i]);
      float* row = between_ + i * kChunk;
      for (std::int64_t j = 0; j <= i; ++j) row[j] = static_cast<float>(sums[i] - sums[j]);
      std::fill(row + i + 1, row + kChunk, kLowestGate);
    }
    std::fill(since_ + size_, since_ + kChunk, 0.0F);
    std::fill(until_ + size_, until_ + kChunk, 0.0F);
    kernels.exp(since_, kChunk, 0.0F);
    kernels.exp(until_, kChunk, 0.0F);
    kernels.exp(between_, size_ * kChunk, 0.0F);
    std::fill_n(rates_, problem_.width(), static_cast<float>(sum));
    find_rates();
  }

  void since_start(const float* rows, float* out) const override {
    row_kernels().scale_rows(rows, since_, size_, problem_.width(), out);
  }
  void until_end(const float* rows, float* out) const override {
    row_kernels().scale_rows(rows, until_, size_, problem_.width(), out);
  }

  void products(const float* queries, const float* keys, const float* panel, ChunkPairs pairs) override {
    decayed_product(queries, panel, Diagonal::in, pairs.reads);
    decayed_product(keys, panel, Diagonal::out, pairs.ties);
  }

  void products_back(ChunkPairs pairs, ChunkPairs grads, const float* queries, const float* keys,
                     const RowGradients& gradients) override {
    sum_crossing(pairs, grads);
    const FiniteRows all_queries(queries, size_, problem_.width());
    const FiniteRows all_keys(keys, size_, problem_.width());
    row_kernels().product(grads.reads, between_, size_ * kChunk, staging_);
    clear_upper(staging_, size_, Diagonal::in);
    add_lower_rows(staging_, size_, all_keys, gradients.queries);
    add_upper_rows(staging_, size_, all_queries, gradients.keys);
    row_kernels().product(grads.ties, between_, size_ * kChunk, staging_);
    clear_upper(staging_, size_, Diagonal::out);
    add_lower_rows(staging_, size_, all_keys, gradients.reading_keys);
    add_upper_rows(staging_, size_, all_keys, gradients.keys);
  }

  void store_gradient(const GateTerms& terms, float* gradient) override {
    const float passing = tile_kernels().sum(terms.passing, problem_.key.dim());
    float joined = passing;
    for (std::int64_t i = 0; i < size_; ++i) {
      gradient[i] = joined + crossing_[i];
      joined += of_row(terms.joining, i);
    }
    float read = 0;
    for (std::int64_t i = size_ - 1; i >= 0; --i) {
      read += of_row(terms.reading, i);
      gradient[i] = first_[i] > kLowestGate ? gradient[i] + read : 0.0F;
    }
  }

 private:
  float of_row(const float* rows, std::int64_t i) const {
    return tile_kernels().sum(rows + i * problem_.width(), problem_.key.dim());
  }

  void sum_crossing(ChunkPairs pairs, ChunkPairs grads) {
    std::fill_n(crossing_, kChunk, 0.0F);
    for (std::int64_t i = 1; i < size_; ++i) {
      const std::int64_t row = i * kChunk;
      float sum = 0;
      for (std::int64_t j = 0; j < i; ++j) {
        sum += pairs.reads[row + j] * grads.reads[row + j] - pairs.ties[row + j] * grads.ties[row + j];
        crossing_[j + 1] += sum;
      }
    }
  }

  void decayed_product(const float* rows, const float* panel, Diagonal diagonal, float* c) const {
    lower_product({rows, problem_.width()}, panel, size_, problem_.key.dim(), c);
    row_kernels().product(c, between_, size_ * kChunk, c);
    clear_upper(c, size_, diagonal);
  }

  const float* first_ = nullptr;
  float* since_;
  float* until_;
  float* between_;  // [n][kChunk]
  float* staging_;
  float* crossing_;  // what passes each gate from keys to later rows
};

}  // namespace

ChunkDecay::ChunkDecay(const DeltaProblem& problem, Scratch& scratch)
    : problem_(problem),
      rates_(scratch.take(problem.width())),
      keeps_(reinterpret_cast<std::int32_t*>(scratch.take(problem.width()))),
      passing_(scratch.take(problem.width())) {}

void ChunkDecay::find_rates() {
  std::copy_n(rates_, problem_.width(), passing_);
  tile_kernels().exp(passing_, problem_.width(), 0.0F);
  row_kernels().decay_rates(rates_, keeps_, problem_.width());
}

void ChunkDecay::decay_state(float* state, std::int64_t columns) const {
  row_kernels().decay(state, columns, rates_, keeps_, problem_.key.dim(), columns);
}

std::unique_ptr<ChunkDecay> make_decay(const DeltaProblem& problem, Scratch& scratch) {
  if (problem.per_channel) return detail::decay_of_channels(problem, scratch);
  return std::make_unique<HeadDecay>(problem, scratch);
}

std::int64_t decay_floats(const DeltaProblem& problem) {
  return problem.per_channel ? detail::channel_decay_floats(problem) : HeadDecay::floats(problem);
}

}  // namespace rattention
