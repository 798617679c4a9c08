#include "linear/update_sum.h"

#include <algorithm>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

namespace rattention {

void SumUpdate::read(const float* phi, std::int64_t n, const float* state, float* out) const {
  const std::int64_t columns = problem_.columns();
  tile_kernels().multiply_add({phi, kChunk, true}, n, problem_.features(), state, columns, columns, out, columns);
}

void SumUpdate::read_one(const float* phi, std::int64_t i, const float* state, float* row) const {
  read(phi + i, 1, state, row);
}

void SumUpdate::read_back(const float* grad_columns, std::int64_t n, const float* state, float* grad_phi) const {
  tile_kernels().multiply_add({state, problem_.columns()}, problem_.features(), problem_.value.dim(), grad_columns,
                              kChunk, padded(n), grad_phi, kChunk);
}

void SumUpdate::receive(const float* gradient, const float* value_columns, float* grad_phi, float* grad_values) const {
  const std::int64_t columns = problem_.columns();
  const std::int64_t n = keys_.size();
  tile_kernels().multiply_add({gradient, columns}, problem_.features(), problem_.value.dim(), value_columns, kChunk,
                              padded(n), grad_phi, kChunk);
  tile_kernels().multiply_add({keys_.phi(), kChunk, true}, n, problem_.features(), gradient, columns, columns,
                              grad_values, columns);
}

void SumUpdate::start(const LinearProblem& problem, float* sum) { std::fill_n(sum, problem.state_size(), 0.0F); }

void SumUpdate::add_to(float* sum) const {
  const ChunkRows& values = keys_.values();
  tile_kernels().multiply_add({keys_.phi(), kChunk}, problem_.features(), keys_.size(), values.row(0), values.stride(),
                              problem_.columns(), sum, problem_.columns());
}

void SumUpdate::add_one_to(std::int64_t i, float* sum) const {
  const ChunkRows& values = keys_.values();
  tile_kernels().multiply_add({keys_.phi() + i, kChunk}, problem_.features(), 1, values.row(i), values.stride(),
                              problem_.columns(), sum, problem_.columns());
}

void SumUpdate::add_rows(const float* phi, const ChunkRows& grads, std::int64_t n, float* sum) const {
  tile_kernels().multiply_add({phi, kChunk}, problem_.features(), n, grads.row(0), grads.stride(), grads.columns(), sum,
                              problem_.columns());
}

void SumUpdate::join(const LinearProblem& problem, const float* base, const float* sum, float* joined) {
  row_kernels().sum(base, sum, problem.state_size(), joined);
}

void SumUpdate::join_more(const LinearProblem& problem, const float* base, const float* sum, float* joined) {
  row_kernels().sum(joined, base, problem.state_size(), joined);
  row_kernels().sum(joined, sum, problem.state_size(), joined);
}

void SumUpdate::join_own(const LinearProblem& problem, const float* state, const float* own, float* joined) {
  row_kernels().sum(state, own, problem.state_size(), joined);
}

void SumUpdate::fold(const LinearProblem& problem, const float* sum, float* base, float* excess) {
  row_kernels().add_compensated(sum, 1.0F, problem.state_size(), base, excess);
}

}  // namespace rattention
