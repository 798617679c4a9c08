#include "softmax/tile_operands.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows.h"

namespace rattention {

void TileOperands::load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span) {
  batch_ = batch;
  kv_head_ = kv_head;
  keys_ = span;
  pack_keys();
}

void TileOperands::load_values() {
  not_finite_.clear();
  if (value_ != nullptr) pack_values();
}

void TileOperands::add_not_finite(float weight, std::int64_t key, float* output) const {
  load_row(*value_, batch_, kv_head_, key, value_row_, columns_);
  std::replace_if(value_row_, value_row_ + columns_, [](float x) { return std::isfinite(x); }, 0.0F);
  kernels_.multiply_add({&weight, 1}, 1, 1, value_row_, columns_, columns_, output, columns_);
}

}  // namespace rattention
