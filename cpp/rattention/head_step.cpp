#include "rattention/head_step.h"

#include <algorithm>
#include <cmath>

#include "core/numbers.h"
#include "core/scratch.h"
#include "kernels/rows.h"
#include "linear/feature_map.h"
#include "softmax/score_problem.h"

namespace rattention {
namespace {

// Cuts what starts on cache lines off a block of memory; without one it counts.
class Layout {
 public:
  explicit Layout(float* memory) : memory_(memory) {}
  float* take(std::int64_t floats) {
    float* taken = memory_ == nullptr ? nullptr : memory_ + taken_;
    taken_ += Scratch::round_up(floats);
    return taken;
  }
  std::int64_t taken() const { return taken_; }

 private:
  float* memory_;
  std::int64_t taken_ = 0;
};

}  // namespace

std::int64_t HeadStep::lay_out(float* memory) {
  Layout layout(memory);
  const std::int64_t dim = padded(config_.head_dim);
  plain_queries_ = layout.take(group_ * dim);
  queries_ = layout.take(group_ * config_.head_dim);
  phi_ = layout.take(group_ * 2 * dim);
  scores_ = layout.take(group_ * kTileStride);
  maxima_ = layout.take(group_ * kernels_.lanes);
  top_ = layout.take(group_);
  total_ = layout.take(group_);
  local_ = layout.take(group_ * columns_);
  linear_ = layout.take(group_ * columns_);
  key_ = layout.take(dim);
  turned_ = layout.take(dim);
  value_ = layout.take(columns_);
  old_key_ = layout.take(dim);
  old_value_ = layout.take(columns_);
  wide_ = layout.take(config_.dtype == DType::f32 ? 0 : kernels_.panel * std::max(config_.head_dim, columns_));
  return layout.taken();
}

void HeadStep::run(std::int64_t index) {
  kept_ = cache_.head(index);
  batch_ = index / config_.kv_heads;
  kv_head_ = index % config_.kv_heads;
  const std::int64_t before = cache_.lengths()[static_cast<std::size_t>(batch_)];
  for (std::int64_t i = 0; i < problem_.count(batch_); ++i) token(i, before + i);
}

void HeadStep::token(std::int64_t i, std::int64_t position) {
  load(i);
  attend(std::min(position, config_.window));
  read_state(position > config_.window);
  store(i);
  remember(i, position);
}

const float* HeadStep::angles_of(std::int64_t i) const {
  if (!cache_.rotates()) return nullptr;
  return inputs_.angles + (batch_ * problem_.query.length() + i) * config_.head_dim;
}

void HeadStep::load(std::int64_t i) {
  const std::int64_t dim = config_.head_dim;
  const float* angles = angles_of(i);
  for (std::int64_t g = 0; g < group_; ++g) {
    float* plain = plain_queries_ + g * padded(dim);
    float* scored = queries_ + g * dim;
    load_row(problem_.query, batch_, kv_head_ * group_ + g, i, plain, padded(dim));
    std::copy_n(plain, dim, scored);
    if (angles != nullptr) cache_.turn_query(scored, angles);
    kernels_.scale(scored, dim, problem_.scale);
  }
  load_row(problem_.key, batch_, kv_head_, i, key_, padded(dim));
  load_row(problem_.value, batch_, kv_head_, i, value_, columns_);
  std::copy_n(key_, dim, turned_);
  if (angles != nullptr) cache_.turn_key(turned_, angles);
}

void HeadStep::attend(std::int64_t filled) {
  std::fill_n(top_, group_, -kInfinity);
  std::fill_n(total_, group_, 0.0F);
  std::fill_n(local_, group_ * columns_, 0.0F);
  for (std::int64_t g = 0; g < group_; ++g) {
    scores_[g * kTileStride] = kernels_.dot(queries_ + g * config_.head_dim, turned_, config_.head_dim);
  }
  weigh(1);
  kernels_.multiply_add({scores_, kTileStride}, group_, 1, value_, columns_, columns_, local_, columns_);
  for (std::int64_t first = 0; first < filled; first += kTileKeys) {
    const std::int64_t slots = std::min(kTileKeys, filled - first);
    score(first, slots);
    weigh(slots);
    add_values(first, slots);
  }
  for (std::int64_t g = 0; g < group_; ++g) {
    kernels_.scale(local_ + g * columns_, columns_, 1 / total_[g]);  // NaN where all scores are -inf
  }
}

void HeadStep::score(std::int64_t first, std::int64_t slots) {
  const std::int64_t items = kernels_.panel * config_.head_dim;
  for (std::int64_t j = 0; j < slots; j += kernels_.panel) {
    const float* panel = wide(kept_.panels, cache_.panel_dtype(), (first + j) / kernels_.panel * items, items);
    kernels_.score_panel(queries_, group_, config_.head_dim, panel, scores_ + j, kTileStride, maxima_);
  }
}

void HeadStep::weigh(std::int64_t n) {
  for (std::int64_t g = 0; g < group_; ++g) {
    float* scores = scores_ + g * kTileStride;
    std::fill_n(scores + n, kernels_.lanes, -kInfinity);
    const float before = top_[g];
    const float top = std::max(before, kernels_.max(scores, n));
    const float shift = top == -kInfinity ? 0.0F : top;
    if (before != -kInfinity && top > before) {
      const float rescale = std::exp(before - top);
      kernels_.scale(local_ + g * columns_, columns_, rescale);
      total_[g] *= rescale;
    }
    top_[g] = top;
    total_[g] += kernels_.exp(scores, n, shift);
  }
}

void HeadStep::add_values(std::int64_t first, std::int64_t slots) {
  const std::int64_t step = config_.dtype == DType::f32 ? slots : kernels_.panel;
  for (std::int64_t j = 0; j < slots; j += step) {
    const std::int64_t n = std::min(step, slots - j);
    const float* values = wide(kept_.values, config_.dtype, (first + j) * columns_, n * columns_);
    kernels_.multiply_add({scores_ + j, kTileStride}, group_, n, values, columns_, columns_, local_, columns_);
  }
}

const float* HeadStep::wide(const std::byte* ring, DType dtype, std::int64_t at, std::int64_t n) {
  const std::byte* first = ring + at * size_of(dtype);
  if (dtype == DType::f32) return reinterpret_cast<const float*>(first);
  widen(first, dtype, n, wide_);
  return wide_;
}

void HeadStep::read_state(bool any) {
  std::fill_n(linear_, group_ * columns_, 0.0F);
  if (!any) return;
  apply_feature_map(config_.feature_map, plain_queries_, group_, config_.head_dim, phi_);
  add_state_rows(phi_, group_, config_.head_dim, kept_.state, columns_, linear_);
}

void HeadStep::store(std::int64_t i) {
  for (std::int64_t g = 0; g < group_; ++g) {
    const std::int64_t head = kv_head_ * group_ + g;
    inputs_.norms->store(head, local_ + g * columns_, linear_ + g * columns_, output_.row(batch_, head, i),
                         output_.dtype);
  }
}

void HeadStep::remember(std::int64_t i, std::int64_t position) {
  if (config_.window == 0) {
    cache_.fold(kept_, key_, value_, phi_);
    return;
  }
  const std::int64_t slot = position % config_.window;
  if (position >= config_.window) {
    cache_.load_slot(kept_, slot, old_key_, old_value_);
    if (cache_.rotates()) cache_.turn_leaving_key_back(old_key_, angles_of(i));
    cache_.fold(kept_, old_key_, old_value_, phi_);
  }
  cache_.store_slot(kept_, slot, turned_, value_);
}

}  // namespace rattention
