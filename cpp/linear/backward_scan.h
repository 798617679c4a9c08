// The backward scan of the linear family: the gradients of one stretch after the other, from the last to the first. The
// rule by which a state becomes the next is a parameter, see update_sum.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/scratch.h"
#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"
#include "linear/chunk_products.h"
#include "linear/linear_gradients.h"
#include "linear/running_gradient.h"
#include "linear/state_scan.h"

namespace rattention {

template <typename Update>
class BackwardScan {
 public:
  BackwardScan(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
               Scratch& scratch)
      : problem_(problem),
        grad_output_(saved.grad_output),
        gradients_(gradients),
        update_(problem, scratch),
        state_(problem, scratch),
        gradient_(problem, scratch),
        grads_(saved.grad_output, scratch),
        staging_(scratch.take(kChunk * std::max(padded(problem.key.dim()), problem.columns()))),
        value_columns_(scratch.take(kChunk * problem.columns())),
        phi_queries_(scratch.take(stretch_chunks(problem) * problem.group() * kChunk * problem.feature_rows())),
        products_(scratch.take(kChunk * kChunk)),
        grad_phi_(scratch.take(kChunk * problem.feature_rows())),
        grad_values_(scratch.take(kChunk * problem.columns())) {}

  static std::int64_t floats(const LinearProblem& problem, const LinearSaved& saved) {
    const auto up = Scratch::round_up;
    return Update::floats(problem) + RunningState<Update>::floats(problem) + RunningGradient<Update>::floats(problem) +
           ChunkGrads::floats(saved.grad_output) + up(kChunk * std::max(padded(problem.key.dim()), problem.columns())) +
           2 * up(kChunk * problem.columns()) +
           up(stretch_chunks(problem) * problem.group() * kChunk * problem.feature_rows()) + up(kChunk * kChunk) +
           up(kChunk * problem.feature_rows());
  }

  RunningGradient<Update>& gradient() { return gradient_; }

  // All gradients of the stretch's tokens: those of queries from the first chunk to the last, as the state grows, those
  // of keys and values from the last to the first, as its gradient grows.
  void run(const Stretch& stretch, std::int64_t kv_head, const float* saved) {
    state_.go_to(stretch, kv_head, saved);
    for (std::int64_t index = stretch.first_chunk; index < stretch.last_chunk; ++index) {
      const Chunk chunk = stretch.chunk(index);
      load_keys(stretch, kv_head, chunk);
      if (index + 1 < stretch.last_chunk) prefetch(stretch, kv_head, stretch.chunk(index + 1));
      for (std::int64_t g = 0; g < problem_.group(); ++g)
        query_gradients(stretch, index, kv_head * problem_.group() + g);
      state_.add(update_);
    }
    for (std::int64_t index = stretch.last_chunk - 1; index >= stretch.first_chunk; --index) {
      key_gradients(stretch, index, kv_head);
    }
  }

  // The sum of the stretch for the gradient of the state, alone.
  void sum(const Stretch& stretch, std::int64_t kv_head) {
    for (std::int64_t index = stretch.last_chunk - 1; index >= stretch.first_chunk; --index) {
      const KeySpan rows = stretch.chunk(index).rows;
      if (rows.last <= stretch.first_seeing) continue;
      for (std::int64_t g = 0; g < problem_.group(); ++g) {
        const std::int64_t head = kv_head * problem_.group() + g;
        grads_.load(stretch, head, rows);
        load_phi_queries(problem_, stretch, head, rows, staging_, phi_queries_);
        gradient_.add(update_, head, phi_queries_, grads_.rows(), rows.size());
      }
    }
  }

  // Once the first stretch of a sequence is done, what is left is the initial state's.
  void store_initial(const Stretch& stretch, std::int64_t kv_head) const {
    if (!stretch.initial || gradients_.initial_state == nullptr) return;
    const std::int64_t copies = state_copies(problem_);
    for (std::int64_t c = 0; c < copies; ++c) {
      const std::int64_t head = stretch.batch * problem_.state_heads + kv_head * copies + c;
      store_state(gradient_.base_of(c), problem_.key.dim(), problem_.value.dim(),
                  gradients_.initial_state + head * problem_.user_state_size());
    }
  }

 private:
  float* phi_of(const Stretch& stretch, std::int64_t index, std::int64_t head) const {
    const std::int64_t slot = (index - stretch.first_chunk) * problem_.group() + head % problem_.group();
    return phi_queries_ + slot * kChunk * problem_.feature_rows();
  }

  void load_keys(const Stretch& stretch, std::int64_t kv_head, const Chunk& chunk) {
    update_.load(stretch.batch, kv_head, chunk.keys);
    if (chunk.keys.empty()) return;
    load_columns(problem_.value, stretch.batch, kv_head, chunk.keys, staging_, value_columns_);
    for (std::int64_t i = 0; problem_.padding && i < chunk.keys.size(); ++i) {
      if (problem_.hidden(stretch.batch, chunk.keys.first + i)) clear_column(value_columns_, problem_.columns(), i);
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
    grads_.load(stretch, head, rows);
    clear_columns(grad_phi_, problem_.features(), whole);
    if (const float* state = state_.read(stretch, head)) {
      update_.read_back(grads_.columns(), n, state, grad_phi_);
    }
    if (update_.keys().size() > 0) {
      update_.pairs(Triangle::upper, value_columns_, grads_.columns(), n, problem_.value.dim(), products_);
      add_triangle_columns(Triangle::upper, update_.keys().phi(), problem_.features(), update_.keys().phi_finite(),
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
    if (n > 0) {
      load_keys(stretch, kv_head, chunk);
      const float* gradient = gradient_.read();
      clear_columns(grad_phi_, problem_.features(), padded(n));
      std::fill_n(grad_values_, n * columns, 0.0F);
      update_.receive(gradient, value_columns_, grad_phi_, grad_values_);
    }
    for (std::int64_t g = 0; g < problem_.group(); ++g) {
      add_row_terms(stretch, index, kv_head * problem_.group() + g, chunk);
    }
    if (n > 0) store_key_gradients(stretch, kv_head, chunk.keys);
  }

  void add_row_terms(const Stretch& stretch, std::int64_t index, std::int64_t head, const Chunk& chunk) {
    const float* phi = phi_of(stretch, index, head);
    const std::int64_t n = chunk.rows.size();
    grads_.load(stretch, head, chunk.rows);
    if (!chunk.keys.empty()) {
      update_.pairs(Triangle::lower, grads_.columns(), value_columns_, n, problem_.value.dim(), products_);
      add_triangle_columns(Triangle::lower, phi, problem_.features(), columns_finite(phi, problem_.features(), n),
                           products_, n, grad_phi_);
      update_.pairs(Triangle::upper, update_.keys().phi(), phi, n, problem_.features(), products_);
      add_triangle(Triangle::upper, products_, n, grads_.rows(), grads_.finite(), grad_values_);
    }
    gradient_.add(update_, head, phi, grads_.rows(), n);
  }

  // Hidden keys have no gradient, whatever came of their zeros.
  void store_key_gradients(const Stretch& stretch, std::int64_t kv_head, KeySpan keys) {
    const float* grad_keys = input_gradient(update_.keys().phi(), keys.size());
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
  Update update_;
  RunningState<Update> state_;
  RunningGradient<Update> gradient_;
  ChunkGrads grads_;
  float* staging_;
  float* value_columns_;
  float* phi_queries_;  // of the whole stretch, for the way back
  float* products_;
  float* grad_phi_;
  float* grad_values_;
};

}  // namespace rattention
