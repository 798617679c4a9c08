// See tile_kernels.h: gravitational scores from squared distances, and their gradients.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/simd.h"
#include "kernels/tile_kernels.h"

namespace {

using std::int64_t;

inline float leading_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0xFFFFF000U;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kSmallestNormal = std::numeric_limits<float>::min();

// 2^(power * logarithm), at most 2^127. The whole part of the product is taken out before anything is rounded: a
// product of about 100 rounded as it is would cost seven bits of the result. The first 12 bits of `power` times a whole
// number below 2^8 are exact.
inline Vec exp2_of_product(float power, Log2 logarithm) {
  const float high = leading_bits(power);
  const Vec product = broadcast(high) * logarithm.whole;
  const Vec whole = min_of(max_of(nearest(product), -126.0F), 126.0F);
  const Vec rest = (product - whole) + broadcast(power - high) * logarithm.whole + broadcast(power) * logarithm.rest;
  return min_of(exp2_vector(min_of(rest, 127.0F)) * exp2_vector(whole), 0x1p127F);
}

// x^power for x >= 0, bounded by 2^127 for finite x; infinity and NaN stay what they are.
inline Vec power_vector(Vec x, float power) {
  if (power == 0.5F) return square_root(x);
  if (power == 1.0F) return x;
  const Vec result = exp2_of_product(power, log2_parts(x));
  const Vec finite = x >= broadcast(kSmallestNormal) ? result : broadcast(0.0F);
  return x <= broadcast(kLargest) ? finite : x;
}

void raise(float* s, int64_t n, float power) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(s + j, power_vector(load(s + j), power));
  if (j < n) store_part(s + j, n - j, power_vector(load_part(s + j, n - j, 1.0F), power));
}

void invert(float* s, int64_t n, float eps) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(s + j, broadcast(1.0F) / (load(s + j) + broadcast(eps)));
  for (; j < n; ++j) s[j] = 1 / (s[j] + eps);
}

void gravitate(float* s, const float* mass, int64_t n, float factor) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(s + j, broadcast(factor) * load(mass + j) * load(s + j));
  for (; j < n; ++j) s[j] = factor * mass[j] * s[j];
}

rattention::GravitySums gravity_gradient(float* x, const float* u, const float* mass, int64_t n, float factor,
                                         float* mass_gradient) {
  Vec field = broadcast(0.0F);
  Vec pull = field;
  const Vec strength = broadcast(factor);
  const Vec slope = broadcast(-2 * factor);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec gradient = load(x + j);
    const Vec zero = broadcast(0.0F);
    const auto seen = gradient != zero;  // of a hidden key distance and masses may be NaN
    const Vec inverse = seen ? load(u + j) : zero;
    const Vec t = gradient * inverse;
    const Vec tm = t * (seen ? load(mass + j) : zero);
    const Vec w = seen ? slope * tm * inverse : zero;
    store(mass_gradient + j, load(mass_gradient + j) + (seen ? strength * t : zero));
    store(x + j, w);
    field += tm;
    pull += w;
  }
  rattention::GravitySums sums{horizontal_sum(field), horizontal_sum(pull), 0.0F};
  for (; j < n; ++j) {
    if (x[j] == 0) continue;
    const float t = x[j] * u[j];
    mass_gradient[j] += factor * t;
    x[j] = -2 * factor * t * mass[j] * u[j];
    sums.field += t * mass[j];
    sums.pull += x[j];
  }
  return sums;
}

// One vector of power_law_gradient: x becomes w, mass_gradient grows, and so do field, pull and exponent.
inline void add_power_law(Vec* x, Vec squares, Vec mass, rattention::PowerLaw law, Vec* mass_gradient, Vec (&sums)[3]) {
  const Vec zero = broadcast(0.0F);
  const Vec one = broadcast(1.0F);
  const auto seen = *x != zero;  // of a hidden key distance and masses may be NaN
  const Vec square = seen ? squares : one;
  const Vec distance = power_vector(square, law.exponent / 2);
  const Vec inverse = one / (distance + broadcast(law.eps));
  const Vec t = *x * inverse;
  const Vec tm = t * (seen ? mass : zero);
  const Vec slope =
      broadcast(-law.factor * law.exponent) * tm * inverse;  // dL/d ln distance, but for distance^exponent
  const Vec apart = square <= broadcast(kLargest) ? distance : zero;
  const Vec ratio = square >= broadcast(kSmallestNormal) ? apart / square : zero;
  const Vec logarithm = square >= broadcast(kSmallestNormal) ? log2_vector(square) : zero;
  constexpr float kHalfLn2 = 0.34657359F;
  *mass_gradient += seen ? broadcast(law.factor) * t : zero;
  *x = seen ? slope * ratio : zero;
  sums[0] += tm;
  sums[1] += *x;
  sums[2] += seen ? slope * apart * logarithm * broadcast(kHalfLn2 / law.exponent) : zero;
}

rattention::GravitySums power_law_gradient(float* x, const float* squares, const float* mass, int64_t n,
                                           rattention::PowerLaw law, float* mass_gradient) {
  Vec sums[3] = {broadcast(0.0F), broadcast(0.0F), broadcast(0.0F)};
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    Vec w = load(x + j);
    Vec gradient = load(mass_gradient + j);
    add_power_law(&w, load(squares + j), load(mass + j), law, &gradient, sums);
    store(x + j, w);
    store(mass_gradient + j, gradient);
  }
  if (const int64_t rest = n - j; rest > 0) {
    Vec w = load_part(x + j, rest, 0.0F);
    Vec gradient = load_part(mass_gradient + j, rest, 0.0F);
    add_power_law(&w, load_part(squares + j, rest, 1.0F), load_part(mass + j, rest, 0.0F), law, &gradient, sums);
    store_part(x + j, rest, w);
    store_part(mass_gradient + j, rest, gradient);
  }
  return {horizontal_sum(sums[0]), horizontal_sum(sums[1]), horizontal_sum(sums[2])};
}

}  // namespace
