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

void product(const float* x, const float* y, int64_t n, float* out) {
  for (int64_t j = 0; j < n; j += kLanes) store(out + j, load(x + j) * load(y + j));
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

// What is left of 1 to 1/2 of x as x - (1 - factor) x: one float holds 1 - factor to its last bit, however near to 1
// the factor is. Not so where x is infinite.
void decay_sum(const float* x, double factor, const float* y, int64_t n, float* out) {
  const bool near_one = factor >= 0.5;
  const Vec f = broadcast(static_cast<float>(factor));
  const Vec lost = broadcast(static_cast<float>(factor - 1.0));
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec a = load(x + j);
    const Vec b = load(y + j);
    const Vec plain = a * f + b;
    const Vec fine = near_one ? a + (a * lost + b) : plain;
    store(out + j, fine - fine == broadcast(0.0F) ? fine : plain);
  }
}

void decay_compensated(const float* x, double factor, int64_t n, float* total, float* excess) {
  const bool near_one = factor >= 0.5;
  const Vec f = broadcast(static_cast<float>(factor));
  const Vec lost = broadcast(static_cast<float>(factor - 1.0));
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec old = load(total + j);
    const Vec before = near_one ? old : old * f;
    const Vec rest_before = load(excess + j) * f;
    const Vec term = load(x + j) + (near_one ? old * lost - rest_before : -rest_before);
    const Vec after = before + term;
    const Vec rest = (after - before) - term;
    const auto finite = rest - rest == broadcast(0.0F);
    store(total + j, finite ? after : old * f + load(x + j));
    store(excess + j, finite ? rest : broadcast(0.0F));
  }
}

void running_products(const double* factors, int64_t n, float scale, double* row, float* products, int64_t stride) {
  constexpr double kSmallest = 1.17549435082228751e-38;
  for (int64_t i = 0; i < n; ++i) {
    const double factor = factors[i];
    float* out = products + i * stride;
    for (int64_t j = 0; j < i; ++j) {
      row[j] *= factor;
      out[j] = scale * (row[j] < kSmallest ? 0.0F : static_cast<float>(row[j]));
    }
    row[i] = 1.0;
    out[i] = scale;
  }
}

void scale_columns(const float* factors, int64_t n, int64_t rows, int64_t stride, float* matrix) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec factor = load(factors + i);
    const auto keeps = factor != broadcast(0.0F);
    for (int64_t f = 0; f < rows; ++f) {
      float* at = matrix + f * stride + i;
      store(at, keeps ? load(at) * factor : broadcast(0.0F));
    }
  }
}

void dot_columns(const float* a, const float* b, int64_t n, int64_t rows, int64_t stride, float* sums) {
  for (int64_t i = 0; i < n; i += kLanes) {
    Vec sum = load(sums + i);
    for (int64_t f = 0; f < rows; ++f) sum += load(a + f * stride + i) * load(b + f * stride + i);
    store(sums + i, sum);
  }
}

void add_outer_compensated(const float* factors, int64_t rows, const float* x, int64_t n, float* total, float* excess) {
  for (int64_t i = 0; i < rows; ++i) add_compensated(x, factors[i], n, total + i * n, excess + i * n);
}

}  // namespace
