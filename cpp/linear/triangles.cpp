#include "linear/triangles.h"

#include <algorithm>

#include "linear/scan_plan.h"

namespace rattention {

void lower_product(LeftOperand a, const float* b, std::int64_t n, std::int64_t depth, float* c) {
  const TileKernels& kernels = tile_kernels();
  std::fill_n(c, n * kChunk, 0.0F);
  for (std::int64_t first = 0; first < n; first += kernels.block) {
    const std::int64_t last = std::min(n, first + kernels.block);
    const LeftOperand rows{a.data + first * (a.transposed ? 1 : a.stride), a.stride, a.transposed};
    kernels.multiply_add(rows, last - first, depth, b, kChunk, padded(last), c + first * kChunk, kChunk);
  }
}

void clear_upper(float* c, std::int64_t n, Diagonal diagonal) {
  for (std::int64_t i = 0; i < n; ++i) {
    std::fill(c + i * kChunk + i + (diagonal == Diagonal::in ? 1 : 0), c + (i + 1) * kChunk, 0.0F);
  }
}

FiniteRows::FiniteRows(const float* rows, std::int64_t n, std::int64_t width)
    : data(rows), columns(width), finite(tile_kernels().all_finite(rows, n * width)) {}

void add_lower_rows(const float* c, std::int64_t n, const FiniteRows& rows, float* out) {
  const TileKernels& kernels = tile_kernels();
  const std::int64_t step = rows.finite ? kernels.block : 1;
  for (std::int64_t first = 0; first < n; first += step) {
    const std::int64_t last = std::min(n, first + step);
    kernels.multiply_add({c + first * kChunk, kChunk}, last - first, last, rows.data, rows.columns, rows.columns,
                         out + first * rows.columns, rows.columns);
  }
}

void add_upper_rows(const float* c, std::int64_t n, const FiniteRows& rows, float* out) {
  const TileKernels& kernels = tile_kernels();
  const std::int64_t step = rows.finite ? kernels.block : 1;
  for (std::int64_t first = 0; first < n; first += step) {
    const std::int64_t last = std::min(n, first + step);
    kernels.multiply_add({c + first * kChunk + first, kChunk, true}, last - first, n - first,
                         rows.data + first * rows.columns, rows.columns, rows.columns, out + first * rows.columns,
                         rows.columns);
  }
}

}  // namespace rattention
