// Products of the rows of a chunk with each other: row i meets row j <= i. A triangle is [n][kChunk], zero where rows
// do not meet, and what lies there touches nobody.
#pragma once

#include <cstdint>

#include "kernels/tile_kernels.h"

namespace rattention {

enum class Diagonal : std::uint8_t { in, out };

// c = a . b with rows a [n][depth] and columns b [depth][kChunk], which are finite or zero up to padded(n).
void lower_product(LeftOperand a, const float* b, std::int64_t n, std::int64_t depth, float* c);
// Zeros above the diagonal, and on it where that is out.
void clear_upper(float* c, std::int64_t n, Diagonal diagonal);

// Rows [n][columns] beside each other, and whether all are finite: products of zeros may be summed then.
struct FiniteRows {
  FiniteRows(const float* rows, std::int64_t n, std::int64_t width);
  const float* data;
  std::int64_t columns;
  bool finite;
};

// out_i += sum_{j <= i} c_ij rows_j, and out_j += sum_{i >= j} c_ij rows_i.
void add_lower_rows(const float* c, std::int64_t n, const FiniteRows& rows, float* out);
void add_upper_rows(const float* c, std::int64_t n, const FiniteRows& rows, float* out);

}  // namespace rattention
