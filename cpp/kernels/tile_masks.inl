// See tile_kernels.h: what masks and distances in time do to a row of scores.
#pragma once

#include <cstdint>

#include "kernels/simd.h"
#include "kernels/tile_kernels.h"
#include "kernels/tile_rows.inl"

namespace {

using std::int64_t;

void add_distance(float* s, int64_t n, float first, float slope) {
  const Vec lanes = lane_index();
  const Vec factor = broadcast(slope);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec signed_distance = broadcast(first + static_cast<float>(j)) + lanes;
    store(s + j, load(s + j) + factor * max_or_second(signed_distance, -signed_distance));
  }
  for (; j < n; ++j) {
    const float distance = first + static_cast<float>(j);
    s[j] += slope * (distance < 0 ? -distance : distance);
  }
}

float sum_distance(const float* x, int64_t n, float first) {
  const Vec lanes = lane_index();
  Vec total = broadcast(0.0F);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec signed_distance = broadcast(first + static_cast<float>(j)) + lanes;
    total += load(x + j) * max_or_second(signed_distance, -signed_distance);
  }
  float rest = horizontal_sum(total);
  for (; j < n; ++j) {
    const float distance = first + static_cast<float>(j);
    rest += x[j] * (distance < 0 ? -distance : distance);
  }
  return rest;
}

int64_t hide(float* s, const std::int32_t* visible, int64_t n) {
  IntVec shown = {};
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const IntVec flags = load(visible + j);
    store(s + j, flags != 0 ? load(s + j) : broadcast(-kInfinity));
    shown -= flags;
  }
  int64_t count = 0;
  for (int i = 0; i < kLanes; ++i) count += shown[i];
  for (; j < n; ++j) {
    if (visible[j] == 0) s[j] = -kInfinity;
    count -= visible[j];
  }
  return count;
}

typedef std::int8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

void and_bytes(const std::uint8_t* flags, int64_t n, std::int32_t* visible) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Bytes shown = *reinterpret_cast<const Bytes*>(flags + j) != 0;
    *reinterpret_cast<UnalignedIntVec*>(visible + j) = load(visible + j) & __builtin_convertvector(shown, IntVec);
  }
  for (; j < n; ++j) visible[j] &= flags[j] != 0 ? -1 : 0;
}

void and_differs(const float* x, int64_t n, float value, std::int32_t* visible) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    *reinterpret_cast<UnalignedIntVec*>(visible + j) =
        load(visible + j) & reinterpret_cast<IntVec>(load(x + j) != broadcast(value));
  }
  for (; j < n; ++j) visible[j] &= x[j] != value ? -1 : 0;
}

}  // namespace
