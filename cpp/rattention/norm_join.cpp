#include "rattention/norm_join.h"

#include <algorithm>

#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "kernels/tile_kernels.h"

namespace rattention {

std::int64_t NormJoin::floats(std::int64_t heads, std::int64_t value_dim) { return heads * 2 * padded(value_dim); }

NormJoin::NormJoin(const BranchNorms& norms, std::int64_t heads, std::int64_t value_dim)
    : dim_(value_dim),
      width_(padded(value_dim)),
      eps_(norms.eps),
      own_(static_cast<std::size_t>(floats(heads, value_dim))),
      weights_(own_.data()) {
  load(norms, heads);
}

NormJoin::NormJoin(const BranchNorms& norms, std::int64_t heads, std::int64_t value_dim, float* memory)
    : dim_(value_dim), width_(padded(value_dim)), eps_(norms.eps), weights_(memory) {
  load(norms, heads);
}

void NormJoin::load(const BranchNorms& norms, std::int64_t heads) {
  float* row = weights_;
  for (std::int64_t head = 0; head < heads; ++head) {
    for (const float* weights : {norms.local_weight, norms.linear_weight}) {
      weights == nullptr ? std::fill_n(row, dim_, 1.0F) : std::copy_n(weights + head * dim_, dim_, row);
      std::fill(row + dim_, row + width_, 0.0F);
      row += width_;
    }
  }
}

void NormJoin::store(std::int64_t head, float* local, const float* linear, std::byte* output, DType dtype) const {
  const bool in_place = dtype == DType::f32 && dim_ == width_;
  float* sum = in_place ? reinterpret_cast<float*>(output) : local;
  row_kernels().add_rms_norms(local, local_weight(head), linear, linear_weight(head), dim_, eps_, sum);
  if (!in_place) store_row(sum, dim_, output, dtype);
}

void NormJoin::backward(std::int64_t head, const float* grad, float* local, float* linear, float* grad_local_weight,
                        float* grad_linear_weight) const {
  const auto gradient = row_kernels().rms_norm_gradient;
  gradient(grad, local_weight(head), dim_, eps_, local, grad_local_weight);
  gradient(grad, linear_weight(head), dim_, eps_, linear, grad_linear_weight);
}

}  // namespace rattention
