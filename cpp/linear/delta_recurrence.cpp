#include "linear/delta_recurrence.h"

#include <algorithm>

#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "linear/chunk_products.h"
#include "linear/delta_decay.h"
#include "linear/delta_states.h"

namespace rattention {
namespace {

// Of a state that goes through all tokens at once: a first-level cache of 32 KiB.
constexpr std::int64_t kStateFloats = 8192;
// The most decay that is left out of a state, as its logarithm: it may make the state 2^16 times as large.
constexpr float kMostPending = 11.0F;

}  // namespace

DeltaRecurrence::DeltaRecurrence(const DeltaProblem& problem, Scratch& scratch)
    : problem_(problem),
      width_(problem.width()),
      columns_(problem.columns()),
      gates_(problem.per_channel ? width_ : 1),
      queries_(scratch.take(kChunk * width_)),
      keys_(scratch.take(kChunk * width_)),
      reading_keys_(scratch.take(kChunk * width_)),
      values_(scratch.take(kChunk * columns_)),
      kept_(scratch.take(kChunk * gates_)),
      inverse_(scratch.take(kChunk * gates_)),
      rates_(scratch.take(kChunk * padded(gates_))),
      keeps_(reinterpret_cast<std::int32_t*>(scratch.take(kChunk * padded(gates_)))),
      pending_(scratch.take(width_)),
      pending_keeps_(reinterpret_cast<std::int32_t*>(scratch.take(width_))),
      read_(scratch.take(columns_)),
      out_(scratch.take(kChunk * columns_)) {}

std::int64_t DeltaRecurrence::floats(const DeltaProblem& problem) {
  const auto up = Scratch::round_up;
  const std::int64_t gates = problem.per_channel ? problem.width() : 1;
  return 3 * up(kChunk * problem.width()) + 2 * up(kChunk * problem.columns()) + 2 * up(kChunk * gates) +
         2 * up(kChunk * padded(gates)) + 2 * up(problem.width()) + up(problem.columns());
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
  sum_gates();
  scale_rows();
}

void DeltaRecurrence::sum_gates() {
  std::fill_n(pending_, width_, 0.0F);
  for (std::int64_t i = 0; i < tokens_.size(); ++i) {
    add_gates(i);
    std::copy_n(pending_, gates_, inverse_ + i * gates_);
    // At the first token, which is all there is in decoding, and never at the last one for being that: rows do not
    // depend on how many follow.
    const float most = problem_.per_channel ? tile_kernels().max(pending_, width_) : *pending_;
    decays_[i] = most > (i == 0 ? 0.0F : kMostPending);
    if (decays_[i]) std::fill_n(pending_, gates_, 0.0F);
  }
}

void DeltaRecurrence::add_gates(std::int64_t i) {
  if (hidden(i)) return;
  const std::int64_t index = batch_ * problem_.query.heads() + head_;
  const float* gates = problem_.log_gate + problem_.gate_at(index, tokens_.first + i);
  for (std::int64_t c = 0; c < problem_.gates(); ++c) pending_[c] -= std::max(gates[c], kLowestGate);
}

void DeltaRecurrence::find_rates(std::int64_t i) {
  const std::int64_t whole = padded(gates_);
  float* rates = rates_ + i * whole;
  for (std::int64_t c = 0; c < gates_; ++c) rates[c] = -inverse_[i * gates_ + c];
  std::fill(rates + gates_, rates + whole, 0.0F);
  row_kernels().decay_rates(rates, keeps_ + i * whole, whole);
}

void DeltaRecurrence::scale_rows() {
  const std::int64_t n = padded(tokens_.size() * gates_);
  std::fill(inverse_ + tokens_.size() * gates_, inverse_ + n, 0.0F);
  for (std::int64_t i = 0; i < tokens_.size(); ++i) {
    if (decays_[i]) find_rates(i);
  }
  for (std::int64_t i = 0; i < n; ++i) kept_[i] = -inverse_[i];
  tile_kernels().exp(kept_, n, 0.0F);
  tile_kernels().exp(inverse_, n, 0.0F);
  if (problem_.corrects()) scale(keys_, kept_, reading_keys_);
  for (std::int64_t i = 0; i < tokens_.size(); ++i) {
    if (!decays_[i]) continue;
    std::fill_n(kept_ + i * gates_, gates_, 1.0F);
    std::fill_n(inverse_ + i * gates_, gates_, 1.0F);
  }
  scale(queries_, kept_, queries_);
  scale(keys_, inverse_, keys_);
  if (!problem_.per_channel) std::fill_n(pending_, width_, pending_[0]);
  tile_kernels().scale(pending_, width_, -1.0F);
  row_kernels().decay_rates(pending_, pending_keeps_, width_);
}

void DeltaRecurrence::scale(const float* rows, const float* factors, float* out) const {
  if (problem_.per_channel) {
    row_kernels().product(rows, factors, tokens_.size() * width_, out);
  } else {
    row_kernels().scale_rows(rows, factors, tokens_.size(), width_, out);
  }
}

void DeltaRecurrence::run_columns(std::int64_t first, std::int64_t columns, float* state) {
  const std::int64_t dim = problem_.key.dim();
  const bool corrects = problem_.corrects();
  const std::int64_t at = (batch_ * problem_.query.heads() + head_) * problem_.query.length() + tokens_.first;
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
    if (decays_[i]) {
      token.rates = rates_ + i * padded(gates_);
      token.keeps = keeps_ + i * padded(gates_);
      token.step = problem_.per_channel ? 1 : 0;
    }
    row_kernels().delta_token(token, state, columns_, dim, columns, read_, out_ + i * columns_ + first);
  }
  row_kernels().decay(state, columns_, pending_, pending_keeps_, dim, columns);
}

}  // namespace rattention
