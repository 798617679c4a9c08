// See tile_kernels.h: sums, extremes and element-wise operations of rows.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/simd.h"
#include "kernels/tile_kernels.h"

namespace {

using std::int64_t;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Reads nothing beyond the row: what lies there may be a score that the row must not see.
float max(const float* x, int64_t n) {
  Vec top = broadcast(-kInfinity);
  Vec other = top;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    top = max_or_second(load(x + j), top);
    other = max_or_second(load(x + j + kLanes), other);
  }
  if (j + kLanes <= n) top = max_or_second(load(x + j), top);
  if (n % kLanes != 0) {
    other = max_or_second(n < kLanes ? load_part(x, n, -kInfinity) : load(x + n - kLanes), other);
  }
  return horizontal_max(max_or_second(other, top));
}

float max_lane(const float* maxima) { return horizontal_max(load(maxima)); }

float sum(const float* x, int64_t n) {
  Vec total = broadcast(0.0F);
  Vec other = total;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    total += load(x + j);
    other += load(x + j + kLanes);
  }
  for (; j + kLanes <= n; j += kLanes) total += load(x + j);
  float rest = horizontal_sum(total + other);
  for (; j < n; ++j) rest += x[j];
  return rest;
}

inline void add_deviation(Vec x, Vec center, Vec* squares, Vec* nonzero) {
  const Vec zero = broadcast(0.0F);
  const Vec d = x != zero ? x - center : zero;
  *squares += d * d;
  *nonzero += x != zero ? broadcast(1.0F) : zero;
}

rattention::Deviations deviations(const float* x, int64_t n, float center) {
  const Vec c = broadcast(center);
  Vec squares = broadcast(0.0F);
  Vec nonzero = squares;
  Vec other_squares = squares;
  Vec other_nonzero = squares;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    add_deviation(load(x + j), c, &squares, &nonzero);
    add_deviation(load(x + j + kLanes), c, &other_squares, &other_nonzero);
  }
  for (; j + kLanes <= n; j += kLanes) add_deviation(load(x + j), c, &squares, &nonzero);
  rattention::Deviations rest{horizontal_sum(squares + other_squares), horizontal_sum(nonzero + other_nonzero)};
  for (; j < n; ++j) {
    if (x[j] == 0) continue;
    rest.squares += (x[j] - center) * (x[j] - center);
    ++rest.nonzero;
  }
  return rest;
}

void scale(float* x, int64_t n, float factor) {
  const Vec f = broadcast(factor);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(x + j, load(x + j) * f);
  for (; j < n; ++j) x[j] *= factor;
}

void add(float* x, const float* y, int64_t n) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(x + j, load(x + j) + load(y + j));
  for (; j < n; ++j) x[j] += y[j];
}

inline float zero_if_finite(float x) { return x * 0.0F; }
inline float zero_if_finite(std::uint16_t bfloat16) { return (bfloat16 & 0x7F80) == 0x7F80 ? 1.0F : 0.0F; }

template <typename Element>
bool all_finite(const Element* x, int64_t n) {
  const Vec zero = broadcast(0.0F);  // x * 0 is 0 for finite x and NaN otherwise
  Vec poison[4] = {zero, zero, zero, zero};
  int64_t j = 0;
  for (; j + 4 * kLanes <= n; j += 4 * kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) poison[i] += load(x + j + i * kLanes) * zero;
  }
  for (; j + kLanes <= n; j += kLanes) poison[0] += load(x + j) * zero;
  float rest = horizontal_sum((poison[0] + poison[1]) + (poison[2] + poison[3]));
  for (; j < n; ++j) rest += zero_if_finite(x[j]);
  return rest == 0.0F;
}

int64_t find(const float* x, int64_t n, float value) {
  int64_t j = 0;
  const Vec wanted = broadcast(value);
  for (; j + kLanes <= n; j += kLanes) {
    const Vec hit = load(x + j) == wanted ? broadcast(1.0F) : broadcast(0.0F);
    if (horizontal_sum(hit) > 0) break;
  }
  while (j < n && x[j] != value) ++j;
  return j;
}

int64_t find_above(const float* x, int64_t n, float value) {
  int64_t j = 0;
  const Vec bound = broadcast(value);
  while (j + kLanes <= n && !any_above(load(x + j), bound)) j += kLanes;
  while (j < n && x[j] <= value) ++j;
  return j;
}

}  // namespace
