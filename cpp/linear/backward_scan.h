// The backward scan of the linear family: the gradients of one stretch after the other, from the last to the first. The
// rule by which a state becomes the next is a parameter, see update_sum.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/scratch.h"
#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"
#include "linear/chunk_products.h"
#include "linear/gate_gradients.h"
#include "linear/linear_gradients.h"
#include "linear/running_gradient.h"
#include "linear/state_scan.h"

namespace rattention {

template <typename Update>
class BackwardScan {
  using Gates = std::conditional_t<Update::kGated, GateGradients, NoGateGradients>;

 public:
  BackwardScan(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
               Scratch& scratch)
      : problem_(problem),
        grad_output_(saved.grad_output),
        gradients_(gradients),
        state_(problem, scratch),
        gradient_(problem, scratch),
        gates_(problem, gradients.log_gates, scratch),
        staging_(scratch.take(kChunk * std::max(padded(problem.key.dim()), problem.columns()))),
        value_columns_(scratch.take(stretch_chunks(problem.group()) * kChunk * problem.columns())),
        phi_queries_(scratch.take(stretch_chunks(problem.group()) * problem.group() * kChunk * problem.feature_rows())),
        products_(scratch.take(kChunk * kChunk)),
        plain_products_(Update::kGated ? scratch.take(kChunk * kChunk) : nullptr),
        grad_phi_(scratch.take(kChunk * problem.feature_rows())),
        grad_values_(scratch.take(kChunk * problem.columns())) {
    const std::int64_t chunks = stretch_chunks(problem.group());
    updates_.reserve(static_cast<std::size_t>(chunks));
    grads_.reserve(static_cast<std::size_t>(chunks * problem.group()));
    for (std::int64_t i = 0; i < chunks; ++i) updates_.emplace_back(problem, scratch);
    for (std::int64_t i = 0; i < chunks * problem.group(); ++i) grads_.emplace_back(saved.grad_output, scratch);
  }

  static std::int64_t floats(const LinearProblem& problem, const LinearSaved& saved) {
    const auto up = Scratch::round_up;
    const std::int64_t chunks = stretch_chunks(problem.group());
    return chunks * (Update::floats(problem) + problem.group() * ChunkGrads::floats(saved.grad_output)) +
           RunningState<Update>::floats(problem) + RunningGradient<Update>::floats(problem) + Gates::floats(problem) +
           up(kChunk * std::max(padded(problem.key.dim()), problem.columns())) +
           up(chunks * kChunk * problem.columns()) + up(chunks * problem.group() * kChunk * problem.feature_rows()) +
           (Update::kGated ? 2 : 1) * up(kChunk * kChunk) + up(kChunk * problem.feature_rows()) +
           up(kChunk * problem.columns());
  }

  RunningGradient<Update>& gradient() { return gradient_; }

  // All gradients of the stretch's tokens: those of queries from the first chunk to the last, as the state grows, those
  // of keys and values from the last to the first, as its gradient grows.
  void run(const Stretch& stretch, std::int64_t kv_head, const float* saved) {
    state_.go_to(stretch, kv_head, saved);
    for (std::int64_t index = stretch.first_chunk; index < stretch.last_chunk; ++index) {
      load_keys(stretch, index, kv_head);
      gates_.begin_chunk(index - stretch.first_chunk, state_);
      if (index + 1 < stretch.last_chunk) prefetch(stretch, kv_head, stretch.chunk(index + 1));
      for (std::int64_t g = 0; g < problem_.group(); ++g)
        query_gradients(stretch, index, kv_head * problem_.group() + g);
      state_.add(update_of(stretch, index));
    }
    for (std::int64_t index = stretch.last_chunk - 1; index >= stretch.first_chunk; --index) {
      key_gradients(stretch, index, kv_head);
    }
  }

  // The sum of the stretch for the gradient of the state, alone.
  void sum(const Stretch& stretch, std::int64_t kv_head) {
    for (std::int64_t index = stretch.last_chunk - 1; index >= stretch.first_chunk; --index) {
      const auto [keys, rows] = stretch.chunk(index);
      if (rows.last <= stretch.first_seeing) continue;
      updates_[0].load_gates(stretch.batch, kv_head, keys);
      gradient_.pass(updates_[0]);
      for (std::int64_t g = 0; g < problem_.group(); ++g) {
        const std::int64_t head = kv_head * problem_.group() + g;
        grads_[0].load(stretch, head, rows);
        load_phi_queries(problem_, stretch, head, rows, staging_, phi_queries_);
        gradient_.add(updates_[0], head, phi_queries_, grads_[0].rows(), rows.size());
      }
    }
  }

  // Once the first stretch of a sequence is done, what is left is the initial state's.
  void store_initial(const Stretch& stretch, std::int64_t kv_head) const {
    if (!stretch.initial || gradients_.initial_state == nullptr) return;
    const std::int64_t copies = state_copies(problem_);
    for (std::int64_t c = 0; c < copies; ++c) {
      const std::int64_t head = stretch.batch * problem_.state_heads + kv_head * copies + c;
      store_state(gradient_.base_of(c), problem_.features(), problem_.value.dim(),
                  gradients_.initial_state + head * problem_.user_state_size());
    }
  }

 private:
  // What is loaded for the queries of a stretch serves the way back as well.
  Update& update_of(const Stretch& stretch, std::int64_t index) {
    return updates_[static_cast<std::size_t>(index - stretch.first_chunk)];
  }
  float* values_of(const Stretch& stretch, std::int64_t index) const {
    return value_columns_ + (index - stretch.first_chunk) * kChunk * problem_.columns();
  }
  std::int64_t slot_of(const Stretch& stretch, std::int64_t index, std::int64_t head) const {
    return (index - stretch.first_chunk) * problem_.group() + head % problem_.group();
  }
  float* phi_of(const Stretch& stretch, std::int64_t index, std::int64_t head) const {
    return phi_queries_ + slot_of(stretch, index, head) * kChunk * problem_.feature_rows();
  }
  ChunkGrads& grads_of(const Stretch& stretch, std::int64_t index, std::int64_t head) {
    return grads_[static_cast<std::size_t>(slot_of(stretch, index, head))];
  }

  void load_keys(const Stretch& stretch, std::int64_t index, std::int64_t kv_head) {
    const KeySpan keys = stretch.chunk(index).keys;
    update_of(stretch, index).load(stretch.batch, kv_head, keys);
    if (keys.empty()) return;
    float* columns = values_of(stretch, index);
    load_columns(problem_.value, stretch.batch, kv_head, keys, staging_, columns);
    for (std::int64_t i = 0; problem_.padding && i < keys.size(); ++i) {
      if (problem_.hidden(stretch.batch, keys.first + i)) clear_column(columns, problem_.columns(), i);
    }
  }

  void prefetch(const Stretch& stretch, std::int64_t kv_head, const Chunk& chunk) const {
    prefetch_chunk(problem_, stretch.batch, kv_head, chunk);
    for (std::int64_t g = 0; g < problem_.group(); ++g) {
      prefetch_rows(grad_output_, stretch.batch, kv_head * problem_.group() + g, chunk.rows);
    }
  }

  // dL/dphi(q)_i = S g_i + sum_{j <= i} (v_j . g_i) phi(k)_j
  void query_gradients(const Stretch& stretch, std::int64_t index, std::int64_t head) {
    const KeySpan rows = stretch.chunk(index).rows;
    if (rows.last <= stretch.first_seeing) return;
    const std::int64_t n = rows.size();
    const std::int64_t whole = padded(n);
    float* phi = phi_of(stretch, index, head);
    load_phi_queries(problem_, stretch, head, rows, staging_, phi);
    const Update& update = update_of(stretch, index);
    ChunkGrads& grads = grads_of(stretch, index, head);
    grads.load(stretch, head, rows);
    clear_columns(grad_phi_, problem_.features(), whole);
    if (const float* state = state_.read(stretch, head)) {
      update.read_back(grads.columns(), n, state, grad_phi_);
      gates_.add_reads(index - stretch.first_chunk, phi, grad_phi_, n);
    }
    if (update.keys().size() > 0) {
      update.pairs(Triangle::upper, values_of(stretch, index), grads.columns(), n, problem_.value.dim(), products_);
      add_triangle_columns(Triangle::upper, update.keys().phi(), problem_.features(), update.keys().phi_finite(),
                           products_, n, grad_phi_);
    }
    const float* rows_of_gradient = input_gradient(phi, n);
    for (std::int64_t i = 0; i < n; ++i) {
      give_row(rows_of_gradient + i * padded(problem_.query.dim()), problem_.query, stretch.batch, head, rows.first + i,
               gradients_.query);
    }
  }

  // dL/dphi(k)_j = R v_j + sum_{i >= j} (v_j . g_i) phi(q)_i and dL/dv_j = R^T phi(k)_j + sum_{i >= j} (phi(k)_j .
  // phi(q)_i) g_i
  void key_gradients(const Stretch& stretch, std::int64_t index, std::int64_t kv_head) {
    const Chunk chunk = stretch.chunk(index);
    const std::int64_t n = chunk.keys.size();
    const std::int64_t columns = problem_.columns();
    if (chunk.rows.last <= stretch.first_seeing) return;
    const Update& update = update_of(stretch, index);
    if (n > 0) {
      clear_columns(grad_phi_, problem_.features(), padded(n));
      std::fill_n(grad_values_, n * columns, 0.0F);
      update.receive(gradient_.read(), values_of(stretch, index), grad_phi_, grad_values_);
      if constexpr (Update::kGated) begin_gates(stretch, index, kv_head);
    }
    gradient_.pass(update);
    for (std::int64_t g = 0; g < problem_.group(); ++g) {
      add_row_terms(stretch, index, kv_head * problem_.group() + g, chunk);
    }
    if (n > 0) {
      store_key_gradients(stretch, index, kv_head);
      gates_.store(stretch.batch, kv_head, chunk.keys);
    }
  }

  void add_row_terms(const Stretch& stretch, std::int64_t index, std::int64_t head, const Chunk& chunk) {
    const float* phi = phi_of(stretch, index, head);
    const std::int64_t n = chunk.rows.size();
    const Update& update = update_of(stretch, index);
    const ChunkGrads& grads = grads_of(stretch, index, head);
    if (!chunk.keys.empty()) {
      update.pairs(Triangle::lower, grads.columns(), values_of(stretch, index), n, problem_.value.dim(), products_);
      add_triangle_columns(Triangle::lower, phi, problem_.features(), columns_finite(phi, problem_.features(), n),
                           products_, n, grad_phi_);
      row_products(update, phi, n);
      add_triangle(Triangle::upper, products_, n, grads.rows(), grads.finite(), grad_values_);
    }
    gradient_.add(update, head, phi, grads.rows(), n);
  }

  // Products of keys and rows; the gates need those of gradients and values beside them, without their decay.
  void row_products(const Update& update, const float* phi, std::int64_t n) {
    if constexpr (Update::kGated) {
      triangle_product(Triangle::upper, update.keys().phi(), phi, n, problem_.features(), plain_products_);
      gates_.add_pairs(products_, plain_products_, n);
      std::swap(products_, plain_products_);
      update.weigh(Triangle::upper, n, products_);
    } else {
      update.pairs(Triangle::upper, update.keys().phi(), phi, n, problem_.features(), products_);
    }
  }

  void begin_gates(const Stretch& stretch, std::int64_t index, std::int64_t kv_head) {
    const std::int64_t slot = index - stretch.first_chunk;
    const Update& update = update_of(stretch, index);
    gates_.begin_keys(slot);
    gates_.add_left(update.keys().phi(), grad_phi_, update.keys().size());
    gates_.add_passed(stretch, slot, kv_head, update.decays().whole(), state_, gradient_);
  }

  // Hidden keys have no gradient, whatever came of their zeros.
  void store_key_gradients(const Stretch& stretch, std::int64_t index, std::int64_t kv_head) {
    const KeySpan keys = stretch.chunk(index).keys;
    const float* grad_keys = input_gradient(update_of(stretch, index).keys().phi(), keys.size());
    for (std::int64_t i = 0; i < keys.size(); ++i) {
      const std::int64_t key = keys.first + i;
      if (problem_.hidden(stretch.batch, key)) continue;
      give_row(grad_keys + i * padded(problem_.key.dim()), problem_.key, stretch.batch, kv_head, key, gradients_.key);
      give_row(grad_values_ + i * problem_.columns(), problem_.value, stretch.batch, kv_head, key, gradients_.value);
    }
  }

  // Rows of dL/dx from phi(x) and dL/dphi(x) = grad_phi_.
  const float* input_gradient(const float* phi, std::int64_t n) {
    const std::int64_t dim = problem_.key.dim();
    feature_map_gradient_of_columns(problem_.feature_map, phi, grad_phi_, kChunk, padded(n), dim, grad_phi_);
    row_kernels().transpose(grad_phi_, kChunk, padded(dim), padded(n), staging_, padded(dim));
    return staging_;
  }

  // To the gradient of row i of `view`, once per row: to read fresh pages of zeros takes longer than to write them.
  void give_row(const float* row, const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t i,
                float* gradient) const {
    float* own = gradient + ((batch * view.heads() + head) * view.length() + i) * view.dim();
    if (gradients_.add) {
      tile_kernels().add(own, row, view.dim());
    } else {
      std::copy_n(row, view.dim(), own);
    }
  }

  const LinearProblem& problem_;
  const TensorView& grad_output_;
  const LinearGradients& gradients_;
  RunningState<Update> state_;
  RunningGradient<Update> gradient_;
  Gates gates_;
  float* staging_;
  // Of the chunks of a stretch.
  float* value_columns_;
  float* phi_queries_;
  std::vector<Update> updates_;
  std::vector<ChunkGrads> grads_;
  float* products_;
  float* plain_products_;
  float* grad_phi_;
  float* grad_values_;
};

}  // namespace rattention
