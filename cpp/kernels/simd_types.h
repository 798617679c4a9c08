// Vectors of RATTENTION_LANES floats on GCC's vector extensions, and how they are loaded and stored.
#pragma once

#include <cstdint>

#ifndef RATTENTION_LANES
#error "define RATTENTION_LANES as 4, 8 or 16"
#endif

namespace {

constexpr int kLanes = RATTENTION_LANES;
constexpr int kVectorBytes = kLanes * 4;

typedef float Vec __attribute__((vector_size(kVectorBytes)));
typedef std::int32_t IntVec __attribute__((vector_size(kVectorBytes)));
typedef std::uint32_t Bits __attribute__((vector_size(kVectorBytes)));
typedef float UnalignedVec __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
typedef std::int32_t UnalignedIntVec __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
typedef std::uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef std::uint16_t UnalignedHalves __attribute__((vector_size(kLanes * 2), aligned(1), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
inline IntVec load(const std::int32_t* p) { return *reinterpret_cast<const UnalignedIntVec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }

}  // namespace
