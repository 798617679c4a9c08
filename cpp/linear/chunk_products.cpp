#include "linear/chunk_products.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "kernels/tile_kernels.h"

namespace rattention {
void load_columns(const TensorView& view, std::int64_t batch, std::int64_t head, KeySpan rows, float* staging,
                  float* columns) {
  const std::int64_t n = rows.size();
  const std::int64_t whole = padded(n);
  const std::int64_t width = padded(view.dim());
  std::int64_t stride = 0;
  const float* direct = float_rows(view, batch, head, &stride);
  if (direct != nullptr && whole == n && width == view.dim()) {
    row_kernels().transpose(direct + rows.first * stride, stride, whole, width, columns, kChunk);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) load_row(view, batch, head, rows.first + i, staging + i * width, width);
  std::fill_n(staging + n * width, (whole - n) * width, 0.0F);
  row_kernels().transpose(staging, width, whole, width, columns, kChunk);
}

void clear_column(float* columns, std::int64_t rows, std::int64_t j) {
  for (std::int64_t f = 0; f < rows; ++f) columns[f * kChunk + j] = 0.0F;
}

void clear_columns(float* columns, std::int64_t rows, std::int64_t n) {
  for (std::int64_t f = 0; f < rows; ++f) std::fill_n(columns + f * kChunk, n, 0.0F);
}

bool column_finite(const float* columns, std::int64_t rows, std::int64_t j) {
  for (std::int64_t f = 0; f < rows; ++f) {
    if (!std::isfinite(columns[f * kChunk + j])) return false;
  }
  return true;
}

bool columns_finite(const float* columns, std::int64_t rows, std::int64_t n) {
  const TileKernels& kernels = tile_kernels();
  if (n == kChunk) return kernels.all_finite(columns, rows * kChunk);
  for (std::int64_t f = 0; f < rows; ++f) {
    if (!kernels.all_finite(columns + f * kChunk, n)) return false;
  }
  return true;
}

void prefetch_rows(const TensorView& view, std::int64_t batch, std::int64_t head, KeySpan rows) {
  constexpr std::int64_t kLine = 64;
  const std::int64_t bytes = view.dim() * size_of(view.dtype);
  for (std::int64_t i = rows.first; i < rows.last; ++i) {
    const std::byte* row = view.row(batch, head, i);
    for (std::int64_t offset = 0; offset < bytes; offset += kLine) __builtin_prefetch(row + offset);
  }
}

void prefetch_chunk(const LinearProblem& problem, std::int64_t batch, std::int64_t kv_head, const Chunk& chunk) {
  prefetch_rows(problem.key, batch, kv_head, chunk.keys);
  prefetch_rows(problem.value, batch, kv_head, chunk.keys);
  for (std::int64_t g = 0; g < problem.group(); ++g) {
    prefetch_rows(problem.query, batch, kv_head * problem.group() + g, chunk.rows);
  }
}

void load_phi_queries(const LinearProblem& problem, const Stretch& stretch, std::int64_t head, KeySpan rows,
                      float* staging, float* phi) {
  float* columns = phi + problem.input_row() * kChunk;
  load_columns(problem.query, stretch.batch, head, rows, staging, columns);
  apply_feature_map_to_columns(problem.feature_map, columns, kChunk, padded(rows.size()), problem.query.dim(), phi);
  const KeySpan unseeing = rows.intersect({rows.first, stretch.first_seeing});
  for (std::int64_t i = 0; i < unseeing.size(); ++i) clear_column(phi, problem.features(), i);
}

std::int64_t ChunkRows::floats(const TensorView& view) { return Scratch::round_up(kChunk * padded(view.dim())); }

ChunkRows::ChunkRows(const TensorView& view, Scratch& scratch)
    : view_(view), columns_(padded(view.dim())), copies_(scratch.take(kChunk * columns_)) {}

void ChunkRows::load(std::int64_t batch, std::int64_t head, KeySpan rows, bool zeros) {
  size_ = rows.size();
  const float* direct = zeros ? nullptr : vector_rows(view_, batch, head, &stride_);
  if (direct != nullptr) {
    data_ = direct + rows.first * stride_;
    return;
  }
  data_ = copies_;
  stride_ = columns_;
  for (std::int64_t i = 0; i < size_; ++i) {
    load_row(view_, batch, head, rows.first + i, copies_ + i * columns_, columns_);
  }
}

void ChunkRows::clear(std::int64_t i) { std::fill_n(copies_ + i * columns_, columns_, 0.0F); }

bool ChunkRows::all_finite() const {
  const TileKernels& kernels = tile_kernels();
  if (stride_ == columns_) return kernels.all_finite(data_, size_ * columns_);
  for (std::int64_t i = 0; i < size_; ++i) {
    if (!kernels.all_finite(row(i), columns_)) return false;
  }
  return true;
}

std::int64_t ChunkKeys::floats(const LinearProblem& problem) {
  return Scratch::round_up(kChunk * padded(problem.key.dim())) + Scratch::round_up(kChunk * problem.feature_rows()) +
         ChunkRows::floats(problem.value);
}

ChunkKeys::ChunkKeys(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem),
      staging_(scratch.take(kChunk * padded(problem.key.dim()))),
      phi_(scratch.take(kChunk * problem.feature_rows())),
      values_(problem.value, scratch) {}

void ChunkKeys::load(std::int64_t batch, std::int64_t kv_head, KeySpan keys) {
  size_ = keys.size();
  if (size_ == 0) return;
  float* columns = phi_ + problem_.input_row() * kChunk;
  load_columns(problem_.key, batch, kv_head, keys, staging_, columns);
  apply_feature_map_to_columns(problem_.feature_map, columns, kChunk, padded(size_), problem_.key.dim(), phi_);
  values_.load(batch, kv_head, keys, problem_.padding.has_value());
  for (std::int64_t i = 0; problem_.padding && i < size_; ++i) {
    if (!problem_.hidden(batch, keys.first + i)) continue;
    clear_column(phi_, problem_.features(), i);
    values_.clear(i);
  }
}

bool ChunkKeys::finite(std::int64_t i) const {
  return tile_kernels().all_finite(values_.row(i), values_.columns()) && column_finite(phi_, problem_.features(), i);
}

void triangle_product(Triangle kept, const float* a, const float* b, std::int64_t n, std::int64_t depth, float* c) {
  const TileKernels& kernels = tile_kernels();
  const bool lower = kept == Triangle::lower;
  const std::int64_t whole = padded(n);
  std::fill_n(c, n * kChunk, 0.0F);
  for (std::int64_t first = 0; first < n; first += kernels.block) {
    const std::int64_t last = std::min(n, first + kernels.block);
    const std::int64_t start = lower ? 0 : first / kernels.lanes * kernels.lanes;
    const std::int64_t columns = (lower ? padded(last) : whole) - start;
    kernels.multiply_add({a + first, kChunk, true}, last - first, depth, b + start, kChunk, columns,
                         c + first * kChunk + start, kChunk);
    for (std::int64_t i = first; i < last; ++i) {
      float* row = c + i * kChunk;
      std::fill(lower ? row + i + 1 : row + start, lower ? row + start + columns : row + i, 0.0F);
    }
  }
}

void add_triangle(Triangle kept, const float* c, std::int64_t n, const ChunkRows& values, bool finite, float* out) {
  const TileKernels& kernels = tile_kernels();
  const std::int64_t step = finite ? kernels.block : 1;
  for (std::int64_t first = 0; first < n; first += step) {
    const std::int64_t last = std::min(n, first + step);
    const KeySpan keys = kept == Triangle::lower ? KeySpan{0, last} : KeySpan{first, n};
    kernels.multiply_add({c + first * kChunk + keys.first, kChunk}, last - first, keys.size(), values.row(keys.first),
                         values.stride(), values.columns(), out + first * values.columns(), values.columns());
  }
}

void add_triangle_columns(Triangle kept, const float* phi, std::int64_t features, bool finite, const float* c,
                          std::int64_t n, float* out) {
  if (finite) {
    tile_kernels().multiply_add({phi, kChunk}, features, n, c, kChunk, padded(n), out, kChunk);
    return;
  }
  std::vector<float> clean(phi, phi + features * kChunk);
  for (std::int64_t j = 0; j < n; ++j) {
    if (column_finite(phi, features, j)) continue;
    clear_column(clean.data(), features, j);
    const KeySpan seen = kept == Triangle::lower ? KeySpan{0, j + 1} : KeySpan{j, n};
    for (std::int64_t f = 0; f < features; ++f) {
      for (std::int64_t i = seen.first; i < seen.last; ++i) {
        out[f * kChunk + i] += phi[f * kChunk + j] * c[j * kChunk + i];
      }
    }
  }
  tile_kernels().multiply_add({clean.data(), kChunk}, features, n, c, kChunk, padded(n), out, kChunk);
}

}  // namespace rattention
