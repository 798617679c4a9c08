#include "nn/layers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include "core/threads.h"

namespace rattention {
namespace {

constexpr std::int64_t kRowsPerTask = 16;

void for_rows(std::int64_t rows, const std::function<void(std::int64_t)>& row_task) {
  parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    const std::int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (std::int64_t i = task * kRowsPerTask; i < end; ++i) row_task(i);
  });
}

// Sum of term(0) ... term(n - 1). Sixteen partial sums: compilers vectorise them without leave to reorder additions,
// and rounding errors grow with n / 16.
template <typename Term>
float sum_of(std::int64_t n, const Term& term) {
  std::array<float, 16> partial{};
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (std::int64_t lane = 0; lane < 16; ++lane) partial[static_cast<std::size_t>(lane)] += term(i + lane);
  }
  for (; i < n; ++i) partial[static_cast<std::size_t>(i % 16)] += term(i);
  for (std::size_t half = 8; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0];
}

void norm_row(const LayerNorm& norm, const float* x, const float* residual, float* y) {
  const std::int64_t n = norm.width;
  for (std::int64_t i = 0; i < n; ++i) y[i] = residual != nullptr ? x[i] + residual[i] : x[i];
  const auto count = static_cast<float>(n);
  const float mean = sum_of(n, [y](std::int64_t i) { return y[i]; }) / count;
  const float variance = sum_of(n, [y, mean](std::int64_t i) { return (y[i] - mean) * (y[i] - mean); }) / count;
  const float scale = 1.0F / std::sqrt(variance + norm.eps);
  for (std::int64_t i = 0; i < n; ++i) y[i] = (y[i] - mean) * scale * norm.weight[i] + norm.bias[i];
}

void require_indices(const EmbeddingTerm& term, std::int64_t rows) {
  for (std::int64_t i = 0; i < rows; ++i) {
    if (term.indices[i] < 0 || term.indices[i] >= term.table_rows) {
      throw std::invalid_argument(term.name + " must lie in [0, " + std::to_string(term.table_rows - 1) + "], got " +
                                  std::to_string(term.indices[i]));
    }
  }
}

}  // namespace

void LayerNorm::operator()(const float* x, const float* residual, std::int64_t rows, float* y) const {
  for_rows(rows, [&](std::int64_t row) {
    const std::int64_t start = row * width;
    norm_row(*this, x + start, residual != nullptr ? residual + start : nullptr, y + start);
  });
}

void embedding_sum(const std::vector<EmbeddingTerm>& terms, std::int64_t rows, std::int64_t width, float* y) {
  for (const EmbeddingTerm& term : terms) require_indices(term, rows);
  for_rows(rows, [&](std::int64_t row) {
    float* sum = y + row * width;
    std::fill_n(sum, width, 0.0F);
    for (const EmbeddingTerm& term : terms) {
      const float* vector = term.table + term.indices[row] * width;
      for (std::int64_t i = 0; i < width; ++i) sum[i] += vector[i];
    }
  });
}

}  // namespace rattention
