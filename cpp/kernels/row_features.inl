// See row_kernels.h: feature maps of rows and of columns, and their gradients.
#pragma once

#include <cstdint>

#include "core/numbers.h"
#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

using rattention::kInfinity;

constexpr float kLog2E = 1.44269504088896340736F;

int64_t round_up(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Lanes beyond the row's end hold `fill` instead of v; `left` elements remain from this vector on.
inline Vec within(Vec v, int64_t left, float fill) {
  return left >= kLanes ? v : (lane_index() < broadcast(static_cast<float>(left)) ? v : broadcast(fill));
}

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

// Vectors of columns taken at a time: enough independent chains of operations, few enough for the registers.
constexpr int kGroup = 3;

void clear_rows(float* rows, int64_t stride, int64_t first, int64_t last, int64_t n) {
  for (int64_t d = first; d < last; ++d) {
    for (int64_t j = 0; j < n; j += kLanes) store(rows + d * stride + j, broadcast(0.0F));
  }
}

template <int N>
struct Count {
  static constexpr int value = N;
};

// Calls visit(Count<vectors>, first column) for groups of columns.
template <typename Visit>
void by_groups(int64_t n, Visit visit) {
  int64_t j = 0;
  for (; j + kGroup * kLanes <= n; j += kGroup * kLanes) visit(Count<kGroup>{}, j);
  for (; j < n; j += kLanes) visit(Count<1>{}, j);
}

template <int G>
void softmax_feature_group(const float* x, int64_t stride, int64_t dim, float* up, float* down) {
  Vec highest[G], lowest[G], total[G], other[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    highest[g] = broadcast(-kInfinity);
    lowest[g] = broadcast(kInfinity);
    total[g] = other[g] = broadcast(0.0F);
  }
  for (int64_t d = 0; d < dim; ++d) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const Vec v = load(x + d * stride + g * kLanes);
      highest[g] = max_or_second(v, highest[g]);
      lowest[g] = min_or_second(v, lowest[g]);
    }
  }
  const Vec unit = broadcast(kLog2E);
  for (int64_t d = 0; d < dim; ++d) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const Vec v = load(x + d * stride + g * kLanes);
      const Vec p = exp2_vector((v - highest[g]) * unit);
      const Vec q = exp2_vector((lowest[g] - v) * unit);
      store(up + d * stride + g * kLanes, p);
      store(down + d * stride + g * kLanes, q);
      total[g] += p;
      other[g] += q;
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    total[g] = broadcast(1.0F) / total[g];
    other[g] = broadcast(1.0F) / other[g];
  }
  for (int64_t d = 0; d < dim; ++d) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      float* p = up + d * stride + g * kLanes;
      float* q = down + d * stride + g * kLanes;
      store(p, load(p) * total[g]);
      store(q, load(q) * other[g]);
    }
  }
}

void softmax_feature_columns(const float* x, int64_t stride, int64_t n, int64_t dim, float* phi) {
  float* down = phi + dim * stride;
  by_groups(n, [&](auto group, int64_t j) {
    softmax_feature_group<decltype(group)::value>(x + j, stride, dim, phi + j, down + j);
  });
}

void relu_feature_columns(const float* x, int64_t stride, int64_t n, int64_t dim, float* phi) {
  const Vec zero = broadcast(0.0F);
  float* down = phi + dim * stride;
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t j = 0; j < n; j += kLanes) {
      const Vec v = load(x + d * stride + j);
      store(phi + d * stride + j, max_or_second(zero, v));
      store(down + d * stride + j, max_or_second(zero, -v));
    }
  }
}

template <int G>
void softmax_gradient_group(const float* phi, const float* grad_phi, int64_t stride, int64_t dim, int64_t half,
                            float* grad_x) {
  Vec mean[G], other[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) mean[g] = other[g] = broadcast(0.0F);
  for (int64_t d = 0; d < dim; ++d) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const int64_t at = d * stride + g * kLanes;
      mean[g] += load(phi + at) * load(grad_phi + at);
      other[g] += load(phi + half + at) * load(grad_phi + half + at);
    }
  }
  for (int64_t d = 0; d < dim; ++d) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const int64_t at = d * stride + g * kLanes;
      store(grad_x + at, load(phi + at) * (load(grad_phi + at) - mean[g]) -
                             load(phi + half + at) * (load(grad_phi + half + at) - other[g]));
    }
  }
}

void softmax_feature_columns_gradient(const float* phi, const float* grad_phi, int64_t stride, int64_t n, int64_t dim,
                                      float* grad_x) {
  by_groups(n, [&](auto group, int64_t j) {
    softmax_gradient_group<decltype(group)::value>(phi + j, grad_phi + j, stride, dim, dim * stride, grad_x + j);
  });
  clear_rows(grad_x, stride, dim, round_up(dim), n);
}

void relu_feature_columns_gradient(const float* phi, const float* grad_phi, int64_t stride, int64_t n, int64_t dim,
                                   float* grad_x) {
  const int64_t half = dim * stride;
  const Vec zero = broadcast(0.0F);
  for (int64_t d = 0; d < dim; ++d) {
    for (int64_t j = 0; j < n; j += kLanes) {
      const int64_t at = d * stride + j;
      const Vec up = load(phi + at) > zero ? load(grad_phi + at) : zero;
      const Vec down = load(phi + half + at) > zero ? load(grad_phi + half + at) : zero;
      store(grad_x + at, up - down);
    }
  }
  clear_rows(grad_x, stride, dim, round_up(dim), n);
}

}  // namespace
