#include "softmax/relative_bias.h"

#include <algorithm>

#include "kernels/tile_kernels.h"
#include "softmax/score_problem.h"

namespace rattention {

RelativeBias::RelativeBias(const float* table, std::int64_t heads, std::int64_t reach)
    : reach_(reach), stride_(2 * reach + 1 + 2 * kTileKeys), rows_(static_cast<std::size_t>(heads * stride_)) {
  for (std::int64_t head = 0; head < heads; ++head) {
    const float* own = table + head * entries();
    float* row = rows_.data() + head * stride_;
    std::fill_n(row, kTileKeys, own[0]);
    std::copy_n(own, entries(), row + kTileKeys);
    std::fill_n(row + kTileKeys + entries(), kTileKeys, own[entries() - 1]);
  }
}

const float* RelativeBias::from(std::int64_t head, std::int64_t distance) const {
  const std::int64_t entry = std::clamp(distance, -reach_ - kTileKeys, reach_ + 1) + reach_;
  return rows_.data() + head * stride_ + kTileKeys + entry;
}

void RelativeBias::add(std::int64_t head, std::int64_t distance, std::int64_t n, float* scores) const {
  tile_kernels().add(scores, from(head, distance), n);
}

void RelativeBias::add_gradient(const float* grad_scores, std::int64_t distance, std::int64_t n, float* entries) const {
  const std::int64_t before = std::clamp<std::int64_t>(-reach_ - distance, 0, n);
  const std::int64_t until = std::clamp<std::int64_t>(reach_ + 1 - distance, 0, n);
  const TileKernels& kernels = tile_kernels();
  entries[0] += kernels.sum(grad_scores, before);
  if (until > before) kernels.add(entries + distance + before + reach_, grad_scores + before, until - before);
  entries[2 * reach_] += kernels.sum(grad_scores + until, n - until);
}

}  // namespace rattention
