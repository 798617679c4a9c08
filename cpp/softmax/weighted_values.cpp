#include "softmax/weighted_values.h"

#include <algorithm>
#include <cmath>

#include "kernels/bf16_kernels.h"
#include "kernels/rows.h"

namespace rattention {
namespace {

Bf16* halves(float* pairs) { return reinterpret_cast<Bf16*>(pairs); }

constexpr std::int64_t kStep = Bf16Kernels::kDepth;

}  // namespace

std::int64_t WeightedValues::columns(const TensorView* value) { return value == nullptr ? 0 : padded(value->dim()); }

std::int64_t WeightedValues::floats(const TensorView* value, Format format) {
  const std::int64_t rows = format == Format::f32 ? kTileKeys : kTileKeys / 2;
  return Scratch::round_up(rows * columns(value)) + Scratch::round_up(columns(value));
}

WeightedValues::WeightedValues(const TensorView* value, Scratch& scratch, Format format, bool few_rows)
    : value_(value),
      kernels_(tile_kernels()),
      format_(format),
      few_rows_(few_rows),
      columns_(columns(value)),
      values_(scratch.take((format == Format::f32 ? kTileKeys : kTileKeys / 2) * columns_)),
      staging_(scratch.take(columns_)) {}

std::int64_t WeightedValues::rows_at_a_time() const {
  return format_ == Format::f32 ? kernels_.block : Bf16Kernels::kBlock;
}

void WeightedValues::load(std::int64_t batch, std::int64_t kv_head, KeySpan span) {
  keys_ = span;
  batch_ = batch;
  kv_head_ = kv_head;
  not_finite_.clear();
  if (value_ == nullptr) return;
  if (format_ == Format::f32) {
    load_floats(span);
  } else {
    load_pairs(span);
  }
}

const float* WeightedValues::rows_in_place() {
  if (few_rows_ && value_->dim() == columns_) return float_rows(*value_, batch_, kv_head_, &stride_);
  return vector_rows(*value_, batch_, kv_head_, &stride_);
}

void WeightedValues::load_floats(KeySpan span) {
  const float* rows = rows_in_place();
  if (rows != nullptr) {
    tile_values_ = rows + span.first * stride_;
  } else {
    tile_values_ = values_;
    stride_ = columns_;
    for (std::int64_t j = 0; j < span.size(); ++j) {
      load_row(*value_, batch_, kv_head_, span.first + j, values_ + j * columns_, columns_);
    }
  }
  if (!finite(span.size())) take_out_not_finite();
}

// Goes on with a copy in which what is not finite is 0.
void WeightedValues::take_out_not_finite() {
  for (std::int64_t j = 0; j < keys_.size(); ++j) {
    const float* from = tile_values_ + j * stride_;
    float* row = values_ + j * columns_;
    const bool finite = kernels_.all_finite(from, columns_);
    std::transform(from, from + columns_, row, [](float x) { return std::isfinite(x) ? x : 0.0F; });
    if (!finite) not_finite_.push_back(keys_.first + j);
  }
  tile_values_ = values_;
  stride_ = columns_;
}

bool WeightedValues::finite(std::int64_t rows) const {
  if (stride_ == columns_) return kernels_.all_finite(tile_values_, rows * columns_);
  for (std::int64_t j = 0; j < rows; ++j) {
    if (!kernels_.all_finite(tile_values_ + j * stride_, columns_)) return false;
  }
  return true;
}

void WeightedValues::load_pairs(KeySpan span) {
  Bf16* row = halves(staging_);
  Bf16* next = row + columns_;
  for (std::int64_t j = 0; j < span.size(); j += 2) {
    copy_halves(*value_, batch_, kv_head_, span.first + j, row, columns_);
    if (j + 1 < span.size()) {
      copy_halves(*value_, batch_, kv_head_, span.first + j + 1, next, columns_);
    } else {
      std::fill(next, next + columns_, Bf16{0});
    }
    const int not_finite = bf16_kernels()->pair_rows(row, next, columns_, halves(values_ + j / 2 * columns_));
    if ((not_finite & 1) != 0) not_finite_.push_back(span.first + j);
    if ((not_finite & 2) != 0) not_finite_.push_back(span.first + j + 1);
  }
  const std::int64_t pairs = (span.size() + 1) / 2;
  const std::int64_t steps = (span.size() + kStep - 1) / kStep;
  std::fill(values_ + pairs * columns_, values_ + steps * (kStep / 2) * columns_, 0.0F);
}

KeySpan WeightedValues::whole_steps(KeySpan keys) const {
  if (format_ == Format::f32) return keys;
  const std::int64_t before = keys.first - keys_.first;
  const std::int64_t until = keys.last - keys_.first;
  return {keys_.first + before / kStep * kStep, keys_.first + (until + kStep - 1) / kStep * kStep};
}

void WeightedValues::add(ScoreTile& tile, std::int64_t first_row, std::int64_t rows, KeySpan keys,
                         float* output) const {
  if (format_ == Format::bf16) {
    const float* pairs = values_ + (keys.first - keys_.first) / 2 * columns_;
    bf16_kernels()->multiply_add(tile.rounded_at(first_row, keys.first), 2 * ScoreTile::kStride, rows, keys.size(),
                                 reinterpret_cast<const Bf16*>(pairs), columns_, output, columns_);
  } else {
    kernels_.multiply_add({tile.at(first_row, keys.first), ScoreTile::kStride}, rows, keys.size(),
                          values_at(keys.first), stride_, columns_, output, columns_);
  }
}

void WeightedValues::add_not_finite(float weight, std::int64_t key, float* output) const {
  load_row(*value_, batch_, kv_head_, key, staging_, columns_);
  std::replace_if(staging_, staging_ + columns_, [](float x) { return std::isfinite(x); }, 0.0F);
  kernels_.multiply_add({&weight, 1}, 1, 1, staging_, columns_, columns_, output, columns_);
}

}  // namespace rattention
