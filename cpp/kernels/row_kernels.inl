// See row_kernels.h. Compiled once per instruction set; internal linkage only.
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
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

typedef std::uint16_t UnalignedHalves __attribute__((vector_size(kLanes * 2), aligned(1), may_alias));

IntVec load_halves(const std::byte* p) {
  return __builtin_convertvector(*reinterpret_cast<const UnalignedHalves*>(p), IntVec);
}

Vec bfloat16_to_float(IntVec half) { return reinterpret_cast<Vec>(half << 16); }

// Exponents move from a bias of 15 to one of 127; that of infinity and NaN twice as far. Subnormal halves are m 2^-24.
Vec float16_to_float(IntVec half) {
  const IntVec magnitude = half & 0x7FFF;
  const IntVec rebias = IntVec{} + (112 << 23);
  const IntVec endless = magnitude > 0x7BFF;
  const IntVec normal = (magnitude << 13) + rebias + (endless & rebias);
  const Vec subnormal = __builtin_convertvector(magnitude, Vec) * broadcast(0x1p-24F);
  const IntVec bits = magnitude < 0x400 ? reinterpret_cast<IntVec>(subnormal) : normal;
  return reinterpret_cast<Vec>(bits | (half & 0x8000) << 16);
}

template <Vec (*ToFloat)(IntVec)>
void widen_halves(const std::byte* halves, int64_t n, float* floats) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(floats + i, ToFloat(load_halves(halves + 2 * i)));
  if (i == n) return;
  std::byte rest[2 * kLanes] = {};
  __builtin_memcpy(rest, halves + 2 * i, static_cast<std::size_t>(2 * (n - i)));
  const Vec last = ToFloat(load_halves(rest));
  for (int j = 0; i + j < n; ++j) floats[i + j] = last[j];
}

typedef std::uint32_t Bits __attribute__((vector_size(kVectorBytes)));
typedef std::uint16_t Halves __attribute__((vector_size(kLanes * 2)));

Halves float_to_bfloat16(Vec v) {
  const Bits bits = reinterpret_cast<Bits>(v);
  const Bits rounded = bits + 0x7FFF + (bits >> 16 & 1);
  return __builtin_convertvector((v == v ? rounded : bits | 0x400000) >> 16, Halves);
}

// Modes that take denormals for zero change nothing: those of float16 are normal numbers of float32.
Halves float_to_float16(Vec v) {
#if RATTENTION_LANES == 16
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return reinterpret_cast<Halves>(_mm512_maskz_cvtps_ph(kAllLanes, reinterpret_cast<__m512>(v), kNearest));
#elif RATTENTION_LANES == 8
  return reinterpret_cast<Halves>(
      _mm256_cvtps_ph(reinterpret_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  const Bits bits = reinterpret_cast<Bits>(v);
  const Bits magnitude = bits & 0x7FFFFFFF;
  // Exponents move from a bias of 127 to one of 15, which wraps where the result is subnormal.
  const Bits normal = (magnitude + 0xFFF + (magnitude >> 13 & 1) - (112 << 23)) >> 13;
  // One unit of 1/2 is 2^-24, that of subnormal halves.
  const Bits subnormal = reinterpret_cast<Bits>(reinterpret_cast<Vec>(magnitude) + broadcast(0.5F)) - 0x3F000000;
  const Bits nan = (magnitude >> 13 & 0x3FF) | 0x7E00;
  Bits half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477FF000 ? Bits{} + 0x7C00 : half;
  half = magnitude > 0x7F800000 ? nan : half;
  return __builtin_convertvector(half | (bits >> 16 & 0x8000), Halves);
#endif
}

template <Halves (*ToHalves)(Vec)>
void narrow_halves(const float* floats, int64_t n, std::byte* halves) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Halves some = ToHalves(load(floats + i));
    __builtin_memcpy(halves + 2 * i, &some, sizeof some);
  }
  if (i == n) return;
  Vec rest = broadcast(0.0F);
  for (int j = 0; i + j < n; ++j) rest[j] = floats[i + j];
  const Halves last = ToHalves(rest);
  __builtin_memcpy(halves + 2 * i, &last, static_cast<std::size_t>(2 * (n - i)));
}

}  // namespace

namespace rattention::detail {

const RowKernels RATTENTION_KERNELS = {
    softmax_features,
    relu_features,
    softmax_feature_columns,
    relu_feature_columns,
    softmax_feature_columns_gradient,
    relu_feature_columns_gradient,
    add_rms_norms,
    rms_norm_gradient,
    rotate,
    widen_halves<bfloat16_to_float>,
    widen_halves<float16_to_float>,
    narrow_halves<float_to_bfloat16>,
    narrow_halves<float_to_float16>,
    transpose_blocks,
    sum,
    add_compensated,
    add_outer_compensated,
};

}  // namespace rattention::detail
