// Weights of an RMS norm, one row per head.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "linear/feature_map.h"

namespace rattention {

// rows[heads][padded(dim)] of contiguous weights [heads, dim], with zeros behind each; all 1 without weights.
inline void load_norm_weights(const float* weights, std::int64_t heads, std::int64_t dim, float* rows) {
  const std::int64_t width = padded(dim);
  std::fill_n(rows, heads * width, 0.0F);
  for (std::int64_t head = 0; head < heads; ++head) {
    float* row = rows + head * width;
    weights == nullptr ? std::fill_n(row, dim, 1.0F) : std::copy_n(weights + head * dim, dim, row);
  }
}

// Such rows, kept.
class NormWeights {
 public:
  NormWeights(const float* weights, std::int64_t heads, std::int64_t dim)
      : width_(padded(dim)), rows_(static_cast<std::size_t>(heads * width_)) {
    load_norm_weights(weights, heads, dim, rows_.data());
  }

  const float* of(std::int64_t head) const { return rows_.data() + head * width_; }

 private:
  std::int64_t width_;
  std::vector<float> rows_;
};

}  // namespace rattention
