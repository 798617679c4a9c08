// See row_kernels.h: RMS norms.
#pragma once

#include <cstdint>

#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

float sum_of_squares(const float* x, int64_t n) {
  Vec total = broadcast(0.0F);
  for (int64_t j = 0; j < n; j += kLanes) total += load(x + j) * load(x + j);
  return horizontal_sum(total);
}

float inverse_rms(const float* x, int64_t n, float eps) {
  return 1.0F / __builtin_sqrtf(sum_of_squares(x, n) / static_cast<float>(n) + eps);
}

void add_rms_norms(const float* x, const float* w, const float* y, const float* v, int64_t n, float eps, float* out) {
  const Vec r = broadcast(inverse_rms(x, n, eps));
  const Vec s = broadcast(inverse_rms(y, n, eps));
  for (int64_t j = 0; j < n; j += kLanes) {
    store(out + j, load(x + j) * r * load(w + j) + load(y + j) * s * load(v + j));
  }
}

void rms_norm_gradient(const float* grad_out, const float* w, int64_t n, float eps, float* x, float* grad_w) {
  const float r = inverse_rms(x, n, eps);
  const Vec scale = broadcast(r);
  Vec product = broadcast(0.0F);
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec g = load(grad_out + j);
    product += g * load(w + j) * load(x + j);
    store(grad_w + j, load(grad_w + j) + g * load(x + j) * scale);
  }
  // r^3 alone overflows where the row is almost zero.
  const Vec along = broadcast(horizontal_sum(product) * r / static_cast<float>(n) * r);
  for (int64_t j = 0; j < n; j += kLanes) {
    store(x + j, (load(grad_out + j) * load(w + j) - load(x + j) * along) * scale);
  }
}

}  // namespace
