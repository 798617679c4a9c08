#include "nn/linear.h"

#include <algorithm>
#include <memory>

#include "core/tensor.h"
#include "core/threads.h"

namespace rattention {
namespace {

// Blocks of equal height, as few as max_rows allows: a last block of one row would cost nearly as much as a full one.
std::int64_t block_rows(std::int64_t rows, std::int64_t max_rows) {
  constexpr std::int64_t kGranule = 16;
  const std::int64_t even = ceil_div(rows, ceil_div(rows, max_rows));
  return std::min(rows, ceil_div(even, kGranule) * kGranule);
}

float* room_for(std::int64_t floats, Scratch& memory) {
  memory.reset(floats);
  return memory.take(floats);
}

}  // namespace

Linear::Products::~Products() {
  for (const auto& product : by_rows_) delete product.load();
}

const DenseProduct& Linear::Products::get(const DenseProduct::Shape& shape, Activation activation) const {
  std::atomic<const DenseProduct*>& slot = by_rows_[static_cast<std::size_t>(shape.rows)];
  const DenseProduct* known = slot.load();
  if (known != nullptr) return *known;
  auto made = std::make_unique<const DenseProduct>(shape, activation);
  if (slot.compare_exchange_strong(known, made.get())) return *made.release();
  return *known;  // another thread was faster
}

Linear::Linear(const float* weight, const float* bias, std::int64_t out_features, std::int64_t in_features,
               Activation activation)
    : out_features_(out_features),
      in_features_(in_features),
      panel_width_(std::min(out_features, DenseProduct::panel_width(out_features))),
      activation_(activation),
      weight_(room_for(out_features * in_features, memory_)),
      bias_(static_cast<std::size_t>(out_features), 0.0F) {
  if (bias != nullptr) std::copy_n(bias, out_features, bias_.begin());
  parallel_for(ceil_div(out_features, panel_width_),
               [&](std::int64_t panel) { copy_panel(weight, panel * panel_width_); });
}

std::int64_t Linear::panel_columns(std::int64_t first_column) const {
  return std::min(panel_width_, out_features_ - first_column);
}

void Linear::copy_panel(const float* weight, std::int64_t first_column) {
  constexpr std::int64_t kColumnsAtOnce = 16;  // a cache line of the copy
  const std::int64_t columns = panel_columns(first_column);
  float* panel = weight_ + first_column * in_features_;
  for (std::int64_t start = 0; start < columns; start += kColumnsAtOnce) {
    const std::int64_t end = std::min(start + kColumnsAtOnce, columns);
    for (std::int64_t k = 0; k < in_features_; ++k) {
      for (std::int64_t j = start; j < end; ++j) panel[k * columns + j] = weight[(first_column + j) * in_features_ + k];
    }
  }
}

void Linear::run_tile(const float* x, std::int64_t rows, std::int64_t first_column, float* y) const {
  const std::int64_t columns = panel_columns(first_column);
  const Products& products = columns == panel_width_ ? full_products_ : last_products_;
  const DenseProduct& product = products.get({rows, in_features_, columns, out_features_}, activation_);
  product(x, weight_ + first_column * in_features_, bias_.data() + first_column, y + first_column);
}

void Linear::operator()(const float* x, std::int64_t rows, float* y) const {
  if (rows == 0) return;
  const std::int64_t height = block_rows(rows, kMaxRows);
  const std::int64_t blocks = ceil_div(rows, height);
  // The panel changes last: it is the larger operand and stays in the cache.
  parallel_for(blocks * ceil_div(out_features_, panel_width_), [&](std::int64_t tile) {
    const std::int64_t first_row = tile % blocks * height;
    run_tile(x + first_row * in_features_, std::min(height, rows - first_row), tile / blocks * panel_width_,
             y + first_row * out_features_);
  });
}

}  // namespace rattention
