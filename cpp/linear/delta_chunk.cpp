#include "linear/delta_chunk.h"

#include <algorithm>

#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "kernels/tile_kernels.h"
#include "linear/delta_states.h"
#include "linear/triangles.h"

namespace rattention {
DeltaChunk::DeltaChunk(const DeltaProblem& problem, Scratch& scratch)
    : problem_(problem),
      decay_(make_decay(problem, scratch)),
      queries_(scratch.take(kChunk * problem.width())),
      keys_(scratch.take(kChunk * problem.width())),
      reading_queries_(scratch.take(kChunk * problem.width())),
      reading_keys_(scratch.take(kChunk * problem.width())),
      joining_keys_(scratch.take(kChunk * problem.width())),
      query_factors_(scratch.take(kChunk)),
      key_factors_(scratch.take(kChunk)),
      panel_(scratch.take(kChunk * problem.width())),
      beta_(scratch.take(kChunk)),
      pairs_{scratch.take(kChunk * kChunk), scratch.take(kChunk * kChunk)},
      errors_(scratch.take(kChunk * problem.columns())),
      updates_(scratch.take(kChunk * problem.columns())) {}

std::int64_t DeltaChunk::floats(const DeltaProblem& problem) {
  const auto up = Scratch::round_up;
  return decay_floats(problem) + 6 * up(kChunk * problem.width()) + 3 * kChunk + 2 * kChunk * kChunk +
         2 * up(kChunk * problem.columns());
}

void DeltaChunk::load(std::int64_t batch, std::int64_t head, KeySpan tokens, std::int64_t seeing) {
  batch_ = batch;
  first_ = tokens.first;
  size_ = tokens.size();
  unseeing_ = tokens.intersect({tokens.first, seeing}).size();
  const std::int64_t width = problem_.width();
  const std::int64_t kv_head = head / problem_.group();
  load_rows(problem_.query, head, problem_.scale, queries_, query_factors_);
  std::fill_n(queries_, unseeing_ * width, 0.0F);
  load_rows(problem_.key, kv_head, 1.0F, keys_, key_factors_);
  load_values(kv_head);
  load_beta(head);
  for (std::int64_t i = 0; problem_.padding && i < size_; ++i) {
    if (!hidden(i)) continue;
    std::fill_n(keys_ + i * width, width, 0.0F);
    std::fill_n(errors_ + i * problem_.columns(), problem_.columns(), 0.0F);
    beta_[i] = 0.0F;
  }
  std::fill_n(keys_ + size_ * width, (padded(size_) - size_) * width, 0.0F);
  row_kernels().transpose(keys_, width, padded(size_), width, panel_, kChunk);
  decay_->load(batch, head, tokens);
  decay_->products(queries_, keys_, panel_, pairs_);
  decay_->since_start(queries_, reading_queries_);
  decay_->until_end(keys_, joining_keys_);
  if (!problem_.corrects()) return;
  decay_->since_start(keys_, reading_keys_);
  tile_kernels().scale(reading_keys_, size_ * width, -1.0F);
  tile_kernels().scale(pairs_.ties, size_ * kChunk, -1.0F);
}

void DeltaChunk::load_rows(const TensorView& view, std::int64_t head, float scale, float* rows, float* factors) const {
  for (std::int64_t i = 0; i < size_; ++i) {
    factors[i] = load_delta_row(problem_, view, batch_, head, first_ + i, scale, rows + i * problem_.width());
  }
}

void DeltaChunk::load_values(std::int64_t head) {
  const std::int64_t columns = problem_.columns();
  for (std::int64_t i = 0; i < size_; ++i) {
    load_row(problem_.value, batch_, head, first_ + i, errors_ + i * columns, columns);
  }
}

void DeltaChunk::load_beta(std::int64_t head) {
  const std::int64_t at = (batch_ * problem_.query.heads() + head) * problem_.query.length() + first_;
  if (problem_.corrects()) std::copy_n(problem_.beta + at, size_, beta_);
}

void DeltaChunk::solve(const float* state) {
  const TileKernels& kernels = tile_kernels();
  const std::int64_t columns = problem_.columns();
  if (!problem_.corrects()) {
    std::copy_n(errors_, size_ * columns, updates_);
    return;
  }
  kernels.multiply_add({reading_keys_, problem_.width()}, size_, problem_.key.dim(), state, columns, columns, errors_,
                       columns);
  for (std::int64_t first = 0; first < size_; first += kernels.block) {
    const std::int64_t n = std::min(size_ - first, kernels.block);
    float* errors = errors_ + first * columns;
    const float* ties = pairs_.ties + first * kChunk;
    kernels.multiply_add({ties, kChunk}, n, first, updates_, columns, columns, errors, columns);
    row_kernels().substitute(ties + first, kChunk, beta_ + first, n, columns, errors, updates_ + first * columns);
  }
}

}  // namespace rattention
