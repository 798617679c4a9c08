// RMSNorm(local) + RMSNorm(linear): how the rows of RAttention's branches become those of its output, and the way back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace rattention {

struct BranchNorms {
  const float* local_weight = nullptr;   // contiguous [heads, value_dim], none = 1
  const float* linear_weight = nullptr;  // the same
  float eps = 0.0F;
};

// Rows of branches and their gradients are padded with zeros to whole vectors.
class NormJoin {
 public:
  NormJoin(const BranchNorms& norms, std::int64_t heads, std::int64_t value_dim);
  // In memory of the caller's, floats(heads, value_dim) of it.
  NormJoin(const BranchNorms& norms, std::int64_t heads, std::int64_t value_dim, float* memory);
  NormJoin(const NormJoin&) = delete;
  NormJoin& operator=(const NormJoin&) = delete;

  static std::int64_t floats(std::int64_t heads, std::int64_t value_dim);

  // Stores value_dim elements of the sum; the local row may be lost.
  void store(std::int64_t head, float* local, const float* linear, std::byte* output, DType dtype) const;
  // Replaces the rows by their gradients and adds to those of the weights, padded as well.
  void backward(std::int64_t head, const float* grad, float* local, float* linear, float* grad_local_weight,
                float* grad_linear_weight) const;

 private:
  void load(const BranchNorms& norms, std::int64_t heads);
  const float* local_weight(std::int64_t head) const { return weights_ + head * 2 * width_; }
  const float* linear_weight(std::int64_t head) const { return local_weight(head) + width_; }

  const std::int64_t dim_;
  const std::int64_t width_;
  const float eps_;
  std::vector<float> own_;
  float* weights_;  // [heads][local, linear][width]
};

}  // namespace rattention
