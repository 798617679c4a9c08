// See row_kernels.h: transposition.
#pragma once

#include <cstdint>

#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

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

}  // namespace
