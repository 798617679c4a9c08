#include "linear/delta_recurrence.h"

#include <algorithm>
#include <cmath>

#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "linear/chunk_products.h"
#include "linear/delta_decay.h"
#include "linear/delta_states.h"

namespace rattention {
namespace {

// Of a state that goes through all tokens at once: a first-level cache of 32 KiB.
constexpr std::int64_t kStateFloats = 8192;

}  // namespace

DeltaRecurrence::DeltaRecurrence(const DeltaProblem& problem, Scratch& scratch)
    : problem_(problem),
      width_(problem.width()),
      columns_(problem.columns()),
      queries_(scratch.take(kChunk * width_)),
      keys_(scratch.take(kChunk * width_)),
      reading_keys_(problem.per_channel ? scratch.take(kChunk * width_) : keys_),
      rates_(scratch.take(problem.per_channel ? kChunk * width_ : kChunk)),
      keeps_(reinterpret_cast<std::int32_t*>(scratch.take(problem.per_channel ? kChunk * width_ : kChunk))),
      values_(scratch.take(kChunk * columns_)),
      decays_(scratch.take(kChunk)),
      read_(scratch.take(columns_)),
      out_(scratch.take(kChunk * columns_)) {}

std::int64_t DeltaRecurrence::floats(const DeltaProblem& problem) {
  const auto up = Scratch::round_up;
  const std::int64_t rows = up(kChunk * problem.width());
  return (problem.per_channel ? 5 * rows : 2 * rows + 2 * kChunk) + 2 * up(kChunk * problem.columns()) + kChunk +
         up(problem.columns());
}

const float* DeltaRecurrence::run(std::int64_t batch, std::int64_t head, KeySpan tokens, std::int64_t seeing,
                                  float* state) {
  batch_ = batch;
  head_ = head;
  tokens_ = tokens;
  load(seeing);
  prefetch({tokens.last, std::min(tokens.last + kChunk, problem_.query.length())});
  const std::int64_t lanes = tile_kernels().lanes;
  const std::int64_t fitting = std::max(lanes, kStateFloats / std::max<std::int64_t>(width_, 1) / lanes * lanes);
  for (std::int64_t first = 0; first < columns_; first += fitting) {
    run_columns(first, std::min(fitting, columns_ - first), state + first);
  }
  return out_;
}

void DeltaRecurrence::prefetch(KeySpan tokens) const {
  prefetch_rows(problem_.query, batch_, head_, tokens);
  prefetch_rows(problem_.key, batch_, head_ / problem_.group(), tokens);
  prefetch_rows(problem_.value, batch_, head_ / problem_.group(), tokens);
}

void DeltaRecurrence::load(std::int64_t seeing) {
  const std::int64_t kv_head = head_ / problem_.group();
  for (std::int64_t i = 0; i < tokens_.size(); ++i) {
    const std::int64_t token = tokens_.first + i;
    float* query = queries_ + i * width_;
    load_delta_row(problem_, problem_.query, batch_, head_, token, problem_.scale, query);
    if (token < seeing) std::fill_n(query, width_, 0.0F);
    if (hidden(i)) {
      std::fill_n(keys_ + i * width_, width_, 0.0F);
      continue;
    }
    load_delta_row(problem_, problem_.key, batch_, kv_head, token, 1.0F, keys_ + i * width_);
    load_row(problem_.value, batch_, kv_head, token, values_ + i * columns_, columns_);
  }
  if (problem_.per_channel) {
    load_channel_gates();
  } else {
    load_gates();
  }
}

void DeltaRecurrence::load_gates() {
  const float* gates = problem_.log_gate + problem_.gate_at(batch_ * problem_.query.heads() + head_, 0);
  const std::int64_t whole = padded(tokens_.size());
  for (std::int64_t i = 0; i < whole; ++i) {
    const bool decays = i < tokens_.size() && !hidden(i);
    rates_[i] = decays ? std::max(gates[tokens_.first + i], kLowestGate) : 0.0F;
  }
  std::copy_n(rates_, whole, decays_);
  row_kernels().decay_rates(rates_, keeps_, whole);
  tile_kernels().exp(decays_, whole, 0.0F);
}

void DeltaRecurrence::load_channel_gates() {
  const std::int64_t dim = problem_.key.dim();
  const std::int64_t index = batch_ * problem_.query.heads() + head_;
  for (std::int64_t i = 0; i < tokens_.size(); ++i) {
    const float* gates = problem_.log_gate + problem_.gate_at(index, tokens_.first + i);
    float* rates = rates_ + i * width_;
    std::fill_n(rates, width_, 0.0F);
    for (std::int64_t c = 0; !hidden(i) && c < dim; ++c) rates[c] = std::max(gates[c], kLowestGate);
  }
  row_kernels().decay_rates(rates_, keeps_, tokens_.size() * width_);
  for (std::int64_t c = 0; problem_.corrects() && c < tokens_.size() * width_; ++c) {
    reading_keys_[c] = (keeps_[c] != 0 ? keys_[c] : 0.0F) + rates_[c] * keys_[c];
  }
}

void DeltaRecurrence::run_columns(std::int64_t first, std::int64_t columns, float* state) {
  const std::int64_t dim = problem_.key.dim();
  const bool corrects = problem_.corrects();
  const std::int64_t at = (batch_ * problem_.query.heads() + head_) * problem_.query.length() + tokens_.first;
  const auto step = problem_.per_channel ? row_kernels().delta_token_of_channels : row_kernels().delta_token;
  if (corrects) {
    std::fill_n(read_, columns, 0.0F);
    tile_kernels().multiply_add({reading_keys_, width_}, 1, dim, state, columns_, columns, read_, columns_);
  }
  for (std::int64_t i = 0; i < tokens_.size(); ++i) {
    DeltaToken token{};
    token.key = keys_ + i * width_;
    token.query = queries_ + i * width_;
    if (corrects && i + 1 < tokens_.size()) token.next = reading_keys_ + (i + 1) * width_;
    token.corrects = corrects;
    token.value = hidden(i) ? nullptr : values_ + i * columns_ + first;
    token.beta = corrects ? problem_.beta[at + i] : 1.0F;
    const std::int64_t gate = problem_.per_channel ? i * width_ : i;
    token.rates = rates_ + gate;
    token.keeps = keeps_ + gate;
    token.decay = problem_.per_channel ? 1.0F : decays_[i];
    step(token, state, columns_, dim, columns, read_, out_ + i * columns_ + first);
  }
}

}  // namespace rattention
