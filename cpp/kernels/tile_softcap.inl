// See tile_kernels.h: scores bounded by a hyperbolic tangent.
#pragma once

#include <cstdint>

#include "kernels/simd.h"
#include "kernels/tile_kernels.h"
#include "kernels/tile_softmax.inl"

namespace {

using std::int64_t;

struct Tanh {
  Vec value;
  Vec slope;
};

// Relative error below 2e-7. Near 0 an odd polynomial, fitted for least relative error, since 1 - e^(-2x) cancels
// there.
inline Tanh tanh_vector(Vec x) {
  const Vec one = broadcast(1.0F);
  const Vec size = max_or_second(x, -x);
  const Vec decay = exp_vector(broadcast(-2.0F) * size);
  const Vec inverse = one / (one + decay);
  const Vec far = (one - decay) * inverse;
  const Vec square = x * x;
  Vec p = broadcast(-0x1.72eca2p-8F);
  p = p * square + broadcast(0x1.515c3cp-6F);
  p = p * square + broadcast(-0x1.b8151ep-5F);
  p = p * square + broadcast(0x1.11058p-3F);
  p = p * square + broadcast(-0x1.555524p-2F);
  const Vec near = p * square * x + x;
  const Vec outside = x < broadcast(0.0F) ? -far : far;
  const Vec value = size < broadcast(0.625F) ? near : outside;
  const Vec slope = broadcast(4.0F) * decay * inverse * inverse;
  return {x == x ? value : x, x == x ? slope : x};
}

void softcap(float* s, int64_t n, float cap, float* slopes) {
  const Vec bound = broadcast(cap);
  for (int64_t j = 0; j < n; j += kLanes) {
    const int64_t count = n - j < kLanes ? n - j : kLanes;
    const Vec x = count == kLanes ? load(s + j) : load_part(s + j, count, 0.0F);
    const Tanh capped = tanh_vector(x / bound);
    if (count == kLanes) {
      store(s + j, bound * capped.value);
      if (slopes != nullptr) store(slopes + j, capped.slope);
    } else {
      store_part(s + j, count, bound * capped.value);
      if (slopes != nullptr) store_part(slopes + j, count, capped.slope);
    }
  }
}

}  // namespace
