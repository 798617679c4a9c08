// See tile_kernels.h: weights from scores, and their gradients.
#pragma once

#include <cstdint>

#include "kernels/simd.h"
#include "kernels/tile_kernels.h"

namespace {

using std::int64_t;

// e^x. The factor comes after the subtraction, so that it multiplies a number that is small where the result is not.
inline Vec exp_vector(Vec x) { return exp2_vector(x * broadcast(1.44269504F)); }

float exp_row(float* s, int64_t n, float shift) {
  const Vec offset = broadcast(shift);
  Vec total = broadcast(0.0F);
  Vec other = total;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    const Vec p = exp_vector(load(s + j) - offset);
    const Vec q = exp_vector(load(s + j + kLanes) - offset);
    store(s + j, p);
    store(s + j + kLanes, q);
    total += p;
    other += q;
  }
  for (; j < n; j += kLanes) {
    const Vec p = exp_vector(load(s + j) - offset);
    store(s + j, p);
    total += p;
  }
  return horizontal_sum(total + other);
}

// Weights and their sum have the bits that exp_row() gives.
rattention::RowSums exp_sums(float* s, int64_t n, float shift) {
  const Vec offset = broadcast(shift);
  const Vec floor = broadcast(-104.0F);  // keeps 0 * -inf out of the sums; weights there are 0
  Vec score = broadcast(0.0F);
  const auto weights = [&](int64_t j) {
    const Vec x = max_or_second(floor, load(s + j) - offset);
    const Vec p = exp_vector(x);
    store(s + j, p);
    score += p * x;
    return p;
  };
  Vec total = broadcast(0.0F);
  Vec other = total;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    total += weights(j);
    other += weights(j + kLanes);
  }
  for (; j < n; j += kLanes) total += weights(j);
  return {horizontal_sum(total + other), horizontal_sum(score)};
}

void exp_twice_shifted(float* s, int64_t n, float shift, float rest) {
  const Vec offset = broadcast(shift);
  const Vec remainder = broadcast(rest);
  for (int64_t j = 0; j < n; j += kLanes) store(s + j, exp_vector((load(s + j) - offset) - remainder));
}

void score_gradient(float* x, const float* p, int64_t n, float delta) {
  const Vec zero = broadcast(0.0F);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec weight = load(p + j);
    store(x + j, weight != zero ? weight * (load(x + j) - broadcast(delta)) : zero);
  }
  for (; j < n; ++j) x[j] = p[j] != 0 ? p[j] * (x[j] - delta) : 0.0F;
}

}  // namespace
