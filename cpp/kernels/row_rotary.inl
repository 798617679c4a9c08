// See row_kernels.h: rotary embedding.
#pragma once

#include <cstdint>

#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

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

}  // namespace
