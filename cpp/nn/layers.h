// Layer norm and embedding: float32, contiguous rows of numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rattention {

// y = weight * (s - mean(s)) / sqrt(variance(s) + eps) + bias over each row of
// s = x + residual, with the population variance.
struct LayerNorm {
  const float* weight;  // [width]
  const float* bias;    // [width]
  std::int64_t width;
  float eps;

  // residual may be null. y may be x or residual.
  void operator()(const float* x, const float* residual, std::int64_t rows, float* y) const;
};

struct EmbeddingTerm {
  std::string name;  // of the indices, for errors
  const float* table;
  std::int64_t table_rows;
  const std::int64_t* indices;
};

// y[i] = sum over terms of table[indices[i]]. Throws std::invalid_argument where an index lies outside its table.
void embedding_sum(const std::vector<EmbeddingTerm>& terms, std::int64_t rows, std::int64_t width, float* y);

}  // namespace rattention
