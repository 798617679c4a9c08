// See row_kernels.h. Compiled once per instruction set; internal linkage only.
#include <cstdint>
#include <limits>

#include "core/row_kernels.h"
#include "core/simd.h"

namespace {

using std::int64_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.44269504088896340736F;

int64_t round_up(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Lanes beyond the row's end hold `fill` instead of v; `left` elements remain from this vector on.
inline Vec within(Vec v, int64_t left, float fill) {
  return left >= kLanes ? v : (lane_index() < broadcast(static_cast<float>(left)) ? v : broadcast(fill));
}

inline Vec min_or_second(Vec a, Vec b) { return -max_or_second(-a, -b); }

// softmax(x) and softmax(-x) of one row, x <= its largest and >= its smallest element; a NaN makes both halves NaN.
void softmax_feature_row(const float* x, int64_t dim, int64_t padded, float* phi) {
  Vec top = broadcast(-kInfinity);
  Vec bottom = broadcast(kInfinity);
  for (int64_t j = 0; j < dim; j += kLanes) {
    top = max_or_second(within(load(x + j), dim - j, -kInfinity), top);
    bottom = min_or_second(within(load(x + j), dim - j, kInfinity), bottom);
  }
  const Vec highest = broadcast(horizontal_max(top));
  const Vec lowest = broadcast(-horizontal_max(-bottom));
  const Vec unit = broadcast(kLog2E);
  Vec total = broadcast(0.0F);
  Vec other = total;
  for (int64_t j = 0; j < dim; j += kLanes) {
    const Vec v = load(x + j);
    const Vec p = within(exp2_vector((v - highest) * unit), dim - j, 0.0F);
    const Vec q = within(exp2_vector((lowest - v) * unit), dim - j, 0.0F);
    store(phi + j, p);
    store(phi + padded + j, q);
    total += p;
    other += q;
  }
  const Vec factor = broadcast(1.0F / horizontal_sum(total));
  const Vec other_factor = broadcast(1.0F / horizontal_sum(other));
  for (int64_t j = 0; j < dim; j += kLanes) {
    store(phi + j, load(phi + j) * factor);
    store(phi + padded + j, load(phi + padded + j) * other_factor);
  }
}

void softmax_features(const float* x, int64_t rows, int64_t dim, float* phi) {
  const int64_t padded = round_up(dim);
  for (int64_t i = 0; i < rows; ++i) softmax_feature_row(x + i * padded, dim, padded, phi + i * 2 * padded);
}

void relu_features(const float* x, int64_t rows, int64_t dim, float* phi) {
  const int64_t padded = round_up(dim);
  const Vec zero = broadcast(0.0F);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < dim; j += kLanes) {
      const Vec v = within(load(x + i * padded + j), dim - j, 0.0F);
      store(phi + i * 2 * padded + j, max_or_second(zero, v));
      store(phi + i * 2 * padded + padded + j, max_or_second(zero, -v));
    }
  }
}

void softmax_features_gradient(const float* phi, const float* grad_phi, int64_t rows, int64_t dim, float* grad_x) {
  const int64_t padded = round_up(dim);
  for (int64_t i = 0; i < rows; ++i) {
    const float* p = phi + i * 2 * padded;
    const float* g = grad_phi + i * 2 * padded;
    Vec mean = broadcast(0.0F);
    Vec other = mean;
    for (int64_t j = 0; j < padded; j += kLanes) {
      mean += load(p + j) * load(g + j);
      other += load(p + padded + j) * load(g + padded + j);
    }
    mean = broadcast(horizontal_sum(mean));
    other = broadcast(horizontal_sum(other));
    for (int64_t j = 0; j < padded; j += kLanes) {
      store(grad_x + i * padded + j, load(p + j) * (load(g + j) - mean) -
                                         load(p + padded + j) * (load(g + padded + j) - other));
    }
  }
}

void relu_features_gradient(const float* phi, const float* grad_phi, int64_t rows, int64_t dim, float* grad_x) {
  const int64_t padded = round_up(dim);
  const Vec zero = broadcast(0.0F);
  for (int64_t i = 0; i < rows; ++i) {
    const float* p = phi + i * 2 * padded;
    const float* g = grad_phi + i * 2 * padded;
    for (int64_t j = 0; j < padded; j += kLanes) {
      const Vec up = load(p + j) > zero ? load(g + j) : zero;
      const Vec down = load(p + padded + j) > zero ? load(g + padded + j) : zero;
      store(grad_x + i * padded + j, up - down);
    }
  }
}

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

void rotate(float* x, int64_t half, const float* one, const float* other, float direction) {
  const Vec sign = broadcast(direction);
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Vec c = load(one + i) * load(other + i) - load(one + half + i) * load(other + half + i);
    const Vec s = (load(one + half + i) * load(other + i) + load(one + i) * load(other + half + i)) * sign;
    const Vec a = load(x + i);
    const Vec b = load(x + half + i);
    store(x + i, a * c - b * s);
    store(x + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float c = one[i] * other[i] - one[half + i] * other[half + i];
    const float s = (one[half + i] * other[i] + one[i] * other[half + i]) * direction;
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * c - b * s;
    x[half + i] = b * c + a * s;
  }
}

void transpose_blocks(const float* x, int64_t stride, int64_t rows, int64_t columns, float* out, int64_t out_stride) {
  for (int64_t i = 0; i < rows; i += kLanes) {
    for (int64_t j = 0; j < columns; j += kLanes) {
      Vec block[kLanes];
#pragma GCC unroll 16
      for (int k = 0; k < kLanes; ++k) block[k] = load(x + (i + k) * stride + j);
      transpose(block);
#pragma GCC unroll 16
      for (int k = 0; k < kLanes; ++k) store(out + (j + k) * out_stride + i, block[k]);
    }
  }
}

void sum(const float* x, const float* y, int64_t n, float* out) {
  for (int64_t j = 0; j < n; j += kLanes) store(out + j, load(x + j) + load(y + j));
}

}  // namespace

namespace rattention::detail {

const RowKernels RATTENTION_KERNELS = {
    softmax_features,
    relu_features,
    softmax_features_gradient,
    relu_features_gradient,
    add_rms_norms,
    rms_norm_gradient,
    rotate,
    transpose_blocks,
    sum,
};

}  // namespace rattention::detail
