// Weights of an RMS norm, one row per head.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "mechanisms/feature_map.h"

namespace rattention {

// Rows padded with zeros to whole vectors; all 1 without weights.
class NormWeights {
 public:
  // `weights` is contiguous [heads, dim], or none.
  NormWeights(const float* weights, std::int64_t heads, std::int64_t dim)
      : width_(padded(dim)), rows_(static_cast<std::size_t>(heads * width_)) {
    for (std::int64_t head = 0; head < heads; ++head) {
      float* row = rows_.data() + head * width_;
      if (weights != nullptr) {
        std::copy_n(weights + head * dim, dim, row);
      } else {
        std::fill_n(row, dim, 1.0F);
      }
    }
  }

  const float* of(std::int64_t head) const { return rows_.data() + head * width_; }

 private:
  std::int64_t width_;
  std::vector<float> rows_;
};

}  // namespace rattention
