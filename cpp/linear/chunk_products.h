// Chunks of rows in working memory, and the products of the rows and keys of a chunk.
//
// Features lie in columns, phi[features][kChunk]: so the feature map needs no sums across a vector, and as left operand
// they may have any strides. Columns beyond the chunk's size are zero up to whole vectors and undefined from there on.
// They are made in place of the inputs, whose padding needs LinearProblem::feature_rows() rows.
#pragma once

#include <cstdint>

#include "core/scratch.h"
#include "core/tensor.h"
#include "linear/scan_plan.h"

namespace rattention {

// columns[padded(dim)][kChunk] = the rows, transposed; `staging` holds [kChunk][padded(dim)].
void load_columns(const TensorView& view, std::int64_t batch, std::int64_t head, KeySpan rows, float* staging,
                  float* columns);
// Zeros in column j, and in the first n columns, of [rows][kChunk].
void clear_column(float* columns, std::int64_t rows, std::int64_t j);
void clear_columns(float* columns, std::int64_t rows, std::int64_t n);
bool column_finite(const float* columns, std::int64_t rows, std::int64_t j);
bool columns_finite(const float* columns, std::int64_t rows, std::int64_t n);
// Asks for rows, or for all inputs of a chunk, to be brought near while other work is done: without it a chunk would
// begin with a wait, because inputs stream from memory.
void prefetch_rows(const TensorView& view, std::int64_t batch, std::int64_t head, KeySpan rows);
void prefetch_chunk(const LinearProblem& problem, std::int64_t batch, std::int64_t kv_head, const Chunk& chunk);

// phi of the rows' queries, zero where a row sees nothing.
void load_phi_queries(const LinearProblem& problem, const Stretch& stretch, std::int64_t head, KeySpan rows,
                      float* staging, float* phi);

// Rows [size][columns] for right operands: where they lie if those are whole, aligned vectors, else copies.
class ChunkRows {
 public:
  ChunkRows(const TensorView& view, Scratch& scratch);
  static std::int64_t floats(const TensorView& view);

  // With `zeros` set rows are always copied, so that clear() may follow.
  void load(std::int64_t batch, std::int64_t head, KeySpan rows, bool zeros);
  void clear(std::int64_t i);

  const float* row(std::int64_t i) const { return data_ + i * stride_; }
  std::int64_t stride() const { return stride_; }
  std::int64_t columns() const { return columns_; }
  bool all_finite() const;

 private:
  const TensorView& view_;
  const std::int64_t columns_;
  float* copies_;
  const float* data_ = nullptr;
  std::int64_t stride_ = 0;
  std::int64_t size_ = 0;
};

// The keys and values of one chunk; those that are hidden are zero.
class ChunkKeys {
 public:
  ChunkKeys(const LinearProblem& problem, Scratch& scratch);
  static std::int64_t floats(const LinearProblem& problem);

  void load(std::int64_t batch, std::int64_t kv_head, KeySpan keys);

  std::int64_t size() const { return size_; }
  const float* phi() const { return phi_; }
  const ChunkRows& values() const { return values_; }
  bool finite(std::int64_t i) const;
  bool phi_finite() const { return columns_finite(phi_, problem_.features(), size_); }

 private:
  const LinearProblem& problem_;
  std::int64_t size_ = 0;
  float* staging_;
  float* phi_;
  ChunkRows values_;
};

enum class Triangle { lower, upper };

// c[n][kChunk] = transpose(a) . b in one triangle, diagonal included, and 0 in the other; a and b are [depth][kChunk].
void triangle_product(Triangle kept, const float* a, const float* b, std::int64_t n, std::int64_t depth, float* c);
// out[n][columns] += c . values. Unless the values are finite, the other triangle is left out: 0 * NaN would leak.
void add_triangle(Triangle kept, const float* c, std::int64_t n, const ChunkRows& values, bool finite, float* out);
// out[features][kChunk] += phi . c, n columns; the same holds for phi. Columns keep their bits whatever those that they
// do not see hold.
void add_triangle_columns(Triangle kept, const float* phi, std::int64_t features, bool finite, const float* c,
                          std::int64_t n, float* out);

}  // namespace rattention
