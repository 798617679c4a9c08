#include "linear/update_decay.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

namespace rattention {
namespace {

// Rows of [n][columns] by their factors. What a factor of 0 leaves is 0, whatever it was.
void scale_rows(const float* factors, std::int64_t n, std::int64_t columns, float* matrix) {
  for (std::int64_t i = 0; i < n; ++i) {
    float* row = matrix + i * columns;
    if (factors[i] == 0.0F) {
      std::fill_n(row, columns, 0.0F);
    } else if (factors[i] != 1.0F) {
      tile_kernels().scale(row, columns, factors[i]);
    }
  }
}

}  // namespace

DecayUpdate::DecayUpdate(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      keys_(problem, scratch),
      decays_(problem, scratch),
      weighted_(scratch.take(kChunk * problem.columns())) {}

std::int64_t DecayUpdate::floats(const LinearProblem& problem) {
  return ChunkKeys::floats(problem) + DecayProducts::floats() + Scratch::round_up(kChunk * problem.columns());
}

void DecayUpdate::load(std::int64_t batch, std::int64_t kv_head, KeySpan keys) {
  keys_.load(batch, kv_head, keys);
  decays_.load(batch, kv_head, keys);
}

void DecayUpdate::load_gates(std::int64_t batch, std::int64_t kv_head, KeySpan keys) {
  decays_.load(batch, kv_head, keys);
}

// `out` is zero on entry.
void DecayUpdate::read(const float* phi, std::int64_t n, const float* state, float* out) const {
  const std::int64_t columns = problem_.columns();
  const std::int64_t reading = std::min(n, decays_.rows_reading());
  tile_kernels().multiply_add({phi, kChunk, true}, reading, problem_.features(), state, columns, columns, out, columns);
  const float* last = decays_.of_rows() + std::max<std::int64_t>(0, reading - 1);
  const bool underflows = reading > 0 && *last == 0.0F;
  if (underflows && !tile_kernels().all_finite(state, problem_.state_floats())) {
    const float smallest = std::copysign(std::numeric_limits<float>::min(), problem_.scale);
    std::array<float, kChunk> factors{};
    for (std::int64_t i = 0; i < reading; ++i) {
      const float factor = decays_.of_rows()[i];
      factors[static_cast<std::size_t>(i)] = factor == 0.0F ? smallest : factor;
    }
    scale_rows(factors.data(), reading, columns, out);
  } else {
    scale_rows(decays_.of_rows(), reading, columns, out);
  }
}

void DecayUpdate::read_one(const float* phi, std::int64_t i, const float* state, float* row) const {
  const std::int64_t columns = problem_.columns();
  tile_kernels().multiply_add({phi + i, kChunk, true}, 1, problem_.features(), state, columns, columns, row, columns);
  tile_kernels().scale(row, columns, problem_.scale);
}

// `grad_phi` is zero on entry.
void DecayUpdate::read_back(const float* grad_columns, std::int64_t n, const float* state, float* grad_phi) const {
  tile_kernels().multiply_add({state, problem_.columns()}, problem_.features(), problem_.value.dim(), grad_columns,
                              kChunk, padded(n), grad_phi, kChunk);
  row_kernels().scale_columns(decays_.of_rows(), padded(n), problem_.features(), kChunk, grad_phi);
}

void DecayUpdate::weigh(Triangle kept, std::int64_t n, float* c) const {
  const bool lower = kept == Triangle::lower;
  const float* factors = lower ? decays_.of_pairs() : decays_.of_pairs_turned();
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t first = i * kChunk + (lower ? 0 : i);
    const std::int64_t last = i * kChunk + (lower ? i + 1 : n);
    for (std::int64_t j = first; j < last; ++j) c[j] *= factors[j];
  }
}

// Both gradients are zero on entry.
void DecayUpdate::receive(const float* gradient, const float* value_columns, float* grad_phi,
                          float* grad_values) const {
  const std::int64_t columns = problem_.columns();
  const std::int64_t n = keys_.size();
  tile_kernels().multiply_add({gradient, columns}, problem_.features(), problem_.value.dim(), value_columns, kChunk,
                              padded(n), grad_phi, kChunk);
  tile_kernels().multiply_add({keys_.phi(), kChunk, true}, n, problem_.features(), gradient, columns, columns,
                              grad_values, columns);
  row_kernels().scale_columns(decays_.of_keys(), padded(n), problem_.features(), kChunk, grad_phi);
  scale_rows(decays_.of_keys(), n, columns, grad_values);
}

void DecayUpdate::start(const LinearProblem& problem, float* sum) {
  std::fill_n(sum, problem.state_floats(), 0.0F);
  set_left(problem, 1.0, sum);
}

// sum += phi . rows, of rows by their factors.
void DecayUpdate::add_weighted(const float* phi, const ChunkRows& rows, KeySpan span, const float* factors,
                               float* sum) const {
  const std::int64_t columns = problem_.columns();
  for (std::int64_t i = span.first; i < span.last; ++i) {
    const float* row = rows.row(i);
    float* weighted = weighted_ + i * columns;
    for (std::int64_t c = 0; c < columns; ++c) weighted[c] = row[c] * factors[i];
  }
  tile_kernels().multiply_add({phi + span.first, kChunk}, problem_.features(), span.size(),
                              weighted_ + span.first * columns, columns, columns, sum, columns);
}

// Weights that may underflow would turn infinity into NaN: then key by key, as rows in the chunk see it.
void DecayUpdate::add_to(float* sum) const {
  constexpr float kSafe = 1e-20F;
  const bool small = decays_.first_joining() < keys_.size() && decays_.of_keys()[decays_.first_joining()] < kSafe;
  if (small && !(keys_.phi_finite() && keys_.values().all_finite())) {
    for (std::int64_t i = 0; i < keys_.size(); ++i) add_one_to(i, sum);
    return;
  }
  decay_state(problem_, decays_.whole(), sum);
  add_weighted(keys_.phi(), keys_.values(), {decays_.first_joining(), keys_.size()}, decays_.of_keys(), sum);
}

void DecayUpdate::add_one_to(std::int64_t i, float* sum) const {
  const ChunkRows& values = keys_.values();
  decay_state(problem_, decays_.gate(i), sum);
  tile_kernels().multiply_add({keys_.phi() + i, kChunk}, problem_.features(), 1, values.row(i), values.stride(),
                              problem_.columns(), sum, problem_.columns());
}

void DecayUpdate::pass_on(float* sum) const { decay_state(problem_, decays_.whole(), sum); }

void DecayUpdate::add_rows(const float* phi, const ChunkRows& grads, std::int64_t n, float* sum) const {
  add_weighted(phi, grads, {0, std::min(n, decays_.rows_reading())}, decays_.of_rows(), sum);
}

void DecayUpdate::join(const LinearProblem& problem, const float* base, const float* sum, float* joined) {
  const double left = product_left(left_of(problem, base), left_of(problem, sum));
  const double factor = usable_factor(problem, left_of(problem, sum), base);
  if (factor == 0.0) {
    std::copy_n(sum, problem.state_floats(), joined);
  } else {
    row_kernels().decay_sum(base, factor, sum, problem.state_floats(), joined);
  }
  set_left(problem, left, joined);
}

void DecayUpdate::join_more(const LinearProblem& problem, const float* base, const float* sum, float* joined) {
  row_kernels().sum(joined, sum, problem.state_floats(), joined);
  const double factor = usable_factor(problem, left_of(problem, sum), base);
  if (factor != 0.0) row_kernels().decay_sum(base, factor, joined, problem.state_floats(), joined);
}

void DecayUpdate::join_own(const LinearProblem& problem, const float* state, const float* own, float* joined) {
  const double factor = usable_factor(problem, left_of(problem, state), own);
  if (factor == 0.0) {
    std::copy_n(state, problem.state_floats(), joined);
  } else {
    row_kernels().decay_sum(own, factor, state, problem.state_floats(), joined);
  }
}

void DecayUpdate::fold(const LinearProblem& problem, const float* sum, float* base, float* excess) {
  const double left = left_of(problem, sum);
  const double factor = usable_factor(problem, left, base);
  if (factor == 0.0) {
    std::copy_n(sum, problem.state_floats(), base);
    std::fill_n(excess, problem.state_floats(), 0.0F);
  } else {
    row_kernels().decay_compensated(sum, factor, problem.state_floats(), base, excess);
  }
  set_left(problem, product_left(left_of(problem, base), left), base);
}

}  // namespace rattention
