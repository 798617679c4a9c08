// See row_kernels.h: sums, also with compensation.
#pragma once

#include <cstdint>

#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

void sum(const float* x, const float* y, int64_t n, float* out) {
  for (int64_t j = 0; j < n; j += kLanes) store(out + j, load(x + j) + load(y + j));
}

void add_compensated(const float* x, float factor, int64_t n, float* total, float* excess) {
  const Vec f = broadcast(factor);
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec before = load(total + j);
    const Vec term = load(x + j) * f - load(excess + j);
    const Vec after = before + term;
    const Vec rest = (after - before) - term;
    store(total + j, after);
    // Infinite or NaN only where the total is: there it would turn infinity into NaN.
    store(excess + j, rest - rest == broadcast(0.0F) ? rest : broadcast(0.0F));
  }
}

void add_outer_compensated(const float* factors, int64_t rows, const float* x, int64_t n, float* total, float* excess) {
  for (int64_t i = 0; i < rows; ++i) add_compensated(x, factors[i], n, total + i * n, excess + i * n);
}

}  // namespace
