#include "rattention/rattention_cache.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>

#include "core/checks.h"
#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "kernels/tile_kernels.h"
#include "softmax/checks.h"

namespace rattention {
namespace {

constexpr std::int64_t kAlignment = 64;
// Far beyond any sequence, and small enough that positions cannot overflow.
constexpr std::int64_t kMaxLength = std::int64_t{1} << 40;

void check_range(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return;
  fail(std::string(name) + " must be " +
       (value < least ? ">= " + std::to_string(least) : "<= " + std::to_string(most)) + ", got " +
       std::to_string(value));
}

CacheConfig checked(const CacheConfig& config) {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;
  check_range("batch", config.batch, 0, kMost);
  check_range("kv_heads", config.kv_heads, 0, kMost);
  check_range("head_dim", config.head_dim, 1, kMost);
  check_range("value_dim", config.value_dim, 0, kMost);
  check_range("window", config.window, 0, std::numeric_limits<std::int64_t>::max() / 2);
  config.rope.check(config.head_dim);
  return config;
}

void check_same(const char* name, double value, double other) {
  if (value == other) return;
  std::ostringstream text;  // whole numbers without a fraction
  text << "the snapshot is of another cache: its " << name << " is " << other << ", this one's " << value;
  fail(text.str());
}

void check_same_config(const CacheConfig& config, const CacheConfig& other) {
  const auto number = [](std::int64_t n) { return static_cast<double>(n); };
  check_same("batch", number(config.batch), number(other.batch));
  check_same("kv_heads", number(config.kv_heads), number(other.kv_heads));
  check_same("head_dim", number(config.head_dim), number(other.head_dim));
  check_same("value_dim", number(config.value_dim), number(other.value_dim));
  check_same("window", number(config.window), number(other.window));
  check_same("feature_map", static_cast<double>(config.feature_map), static_cast<double>(other.feature_map));
  if (!(config.rope == other.rope)) fail("the snapshot is of another cache: its rotary embedding is different");
  if (config.dtype != other.dtype) {
    fail(std::string("the snapshot is of another cache: its dtype is ") + name_of(other.dtype) + ", this one's " +
         name_of(config.dtype));
  }
}

// Rows of `items` elements as whole cache lines.
std::int64_t line_bytes(std::int64_t rows, std::int64_t items, std::int64_t size) {
  return (checked_product(checked_product(rows, items), size) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

RAttentionCache::RAttentionCache(const CacheConfig& config)
    : config_(checked(config)), panel_(tile_kernels().panel), columns_(rattention::padded(config.value_dim)) {
  const std::int64_t size = size_of(config.dtype);
  const std::int64_t panels = config.window / panel_ + (config.window % panel_ != 0 ? 1 : 0);
  const std::int64_t state = line_bytes(features(config.feature_map, config.head_dim), columns_, sizeof(float));
  values_at_ = line_bytes(checked_product(panels, panel_), config.head_dim, size_of(panel_dtype()));
  state_at_ = values_at_ + line_bytes(config.window, columns_, size);
  excess_at_ = state_at_ + state;
  head_bytes_ = excess_at_ + state;
  if (rotates()) lay_out_turns();
  lengths_.resize(static_cast<std::size_t>(config.batch));
  allocate();
}

void RAttentionCache::lay_out_turns() {
  const std::vector<double>& factors = config_.rope.factors;
  turns_ = {config_.rope.frequencies, std::vector<double>(factors.size(), 1.0)};
  for (std::vector<float>* table : {&no_turn_, &factors_, &window_back_}) table->resize(2 * factors.size());
  angles(0, no_turn_.data());
  angles(-config_.window, window_back_.data());
  std::transform(factors.begin(), factors.end(), factors_.begin(),
                 [](double factor) { return static_cast<float>(factor * factor); });
}

RAttentionCache::RAttentionCache(const RAttentionCache& other)
    : config_(other.config_),
      panel_(other.panel_),
      columns_(other.columns_),
      values_at_(other.values_at_),
      state_at_(other.state_at_),
      excess_at_(other.excess_at_),
      head_bytes_(other.head_bytes_),
      turns_(other.turns_),
      no_turn_(other.no_turn_),
      factors_(other.factors_),
      window_back_(other.window_back_),
      lengths_(other.lengths_) {
  allocate();
  std::memcpy(heads_, other.heads_, static_cast<std::size_t>(heads() * head_bytes_));
}

// Pages that calloc() has from the system are zero, and take no memory until a token comes to lie there.
void RAttentionCache::allocate() {
  const std::int64_t bytes = checked_product(checked_product(config_.batch, config_.kv_heads), head_bytes_);
  memory_.reset(static_cast<std::byte*>(std::calloc(static_cast<std::size_t>(bytes + kAlignment), 1)));
  if (!memory_) throw OutOfMemory(bytes);
  const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
  heads_ = memory_.get() + (kAlignment - address % kAlignment) % kAlignment;
}

void RAttentionCache::restore(const RAttentionCache& copy) {
  check_same_config(config_, copy.config_);
  lengths_ = copy.lengths_;
  std::memcpy(heads_, copy.heads_, static_cast<std::size_t>(heads() * head_bytes_));
}

std::int64_t RAttentionCache::bytes() const {
  return heads() * head_bytes_ + static_cast<std::int64_t>(lengths_.size() * sizeof(std::int64_t));
}

CacheHead RAttentionCache::head(std::int64_t index) const {
  std::byte* first = heads_ + index * head_bytes_;
  return {first, first + values_at_, reinterpret_cast<float*>(first + state_at_),
          reinterpret_cast<float*>(first + excess_at_)};
}

void RAttentionCache::turn_key(float* key, const float* angles) const {
  row_kernels().rotate(key, config_.head_dim / 2, angles, no_turn_.data(), 1.0F);
}

void RAttentionCache::turn_key_back(float* key, const float* angles) const {
  row_kernels().rotate(key, config_.head_dim / 2, angles, no_turn_.data(), -1.0F);
  round_key(key);
}

void RAttentionCache::turn_query(float* query, const float* angles) const {
  row_kernels().rotate(query, config_.head_dim / 2, angles, factors_.data(), 1.0F);
}

void RAttentionCache::turn_leaving_key_back(float* key, const float* angles) const {
  row_kernels().rotate(key, config_.head_dim / 2, angles, window_back_.data(), -1.0F);
  round_key(key);
}

void RAttentionCache::round_key(float* key) const {
  if (config_.dtype == DType::f32) return;
  constexpr std::int64_t kSome = 64;
  std::byte some[kSome * sizeof(std::uint16_t)];
  for (std::int64_t first = 0; first < config_.head_dim; first += kSome) {
    const std::int64_t n = std::min(kSome, config_.head_dim - first);
    store_row(key + first, n, some, config_.dtype);
    widen(some, config_.dtype, n, key + first);
  }
}

std::byte* RAttentionCache::in_panel(std::byte* panels, std::int64_t slot) const {
  return panels + (slot / panel_ * config_.head_dim * panel_ + slot % panel_) * size_of(panel_dtype());
}

void RAttentionCache::load_slot(const CacheHead& kept, std::int64_t slot, float* key, float* value) const {
  const std::int64_t step = panel_ * size_of(panel_dtype());
  const std::int64_t dim = config_.head_dim;
  const std::byte* first = in_panel(kept.panels, slot);
  for (std::int64_t d = 0; d < dim; ++d) key[d] = load_element(first + d * step, panel_dtype());
  std::fill(key + dim, key + padded(dim), 0.0F);
  widen(kept.values + slot * columns_ * size_of(config_.dtype), config_.dtype, columns_, value);
}

void RAttentionCache::load_token(const CacheHead& kept, std::int64_t position, const Rotary& rotary, float* key,
                                 float* value) const {
  load_slot(kept, position % config_.window, key, value);
  if (!rotates()) return;
  rotary.undo(key, position);
  round_key(key);
}

void RAttentionCache::store_slot(const CacheHead& kept, std::int64_t slot, const float* key, const float* value) const {
  store_row(value, columns_, kept.values + slot * columns_ * size_of(config_.dtype), config_.dtype);
  constexpr std::int64_t kSome = 64;
  const std::int64_t size = size_of(panel_dtype());
  std::byte* next = in_panel(kept.panels, slot);
  std::byte some[kSome * sizeof(float)];
  for (std::int64_t first = 0; first < config_.head_dim; first += kSome) {
    const std::int64_t n = std::min(kSome, config_.head_dim - first);
    store_row(key + first, n, some, panel_dtype());
    for (std::int64_t d = 0; d < n; ++d, next += panel_ * size) {
      std::memcpy(next, some + d * size, static_cast<std::size_t>(size));
    }
  }
}

void RAttentionCache::fold(const CacheHead& kept, const float* key, const float* value, float* phi) const {
  apply_feature_map(config_.feature_map, key, 1, config_.head_dim, phi);
  const std::int64_t dim = config_.head_dim;
  for (std::int64_t half = 0; half < 2; ++half) {
    const std::int64_t at = half * dim * columns_;
    row_kernels().add_outer_compensated(phi + half * padded(dim), dim, value, columns_, kept.state + at,
                                        kept.excess + at);
  }
}

void RAttentionCache::check_room(std::int64_t b, std::int64_t n) const {
  if (lengths_[static_cast<std::size_t>(b)] + n > kMaxLength)
    fail("the cache has seen 2^40 tokens, which is all it can");
}

std::int64_t RAttentionCache::filled(std::int64_t b) const {
  return std::min(config_.window, lengths_[static_cast<std::size_t>(b)]);
}

void RAttentionCache::recent_keys(std::int64_t b, std::int64_t n, std::byte* keys) const {
  const std::int64_t first = lengths_[static_cast<std::size_t>(b)] - n;
  const Rotary rotary(turns_, first, n);
  std::vector<float> row(static_cast<std::size_t>(padded(config_.head_dim) + columns_));
  for (std::int64_t h = 0; h < config_.kv_heads; ++h) {
    const CacheHead from = head(b * config_.kv_heads + h);
    for (std::int64_t position = first; position < first + n; ++position) {
      load_token(from, position, rotary, row.data(), row.data() + padded(config_.head_dim));
      store_row(row.data(), config_.head_dim, keys, config_.dtype);
      keys += config_.head_dim * size_of(config_.dtype);
    }
  }
}

void RAttentionCache::write(const CacheContents& contents) const {
  std::copy(lengths_.begin(), lengths_.end(), contents.lengths);
  for (std::int64_t index = 0; index < heads(); ++index) write_head(index, contents);
}

void RAttentionCache::write_head(std::int64_t index, const CacheContents& contents) const {
  const CacheHead from = head(index);
  const std::int64_t size = size_of(config_.dtype);
  const std::int64_t key_bytes = config_.head_dim * size_of(panel_dtype());
  const std::int64_t value_bytes = config_.value_dim * size;
  std::byte* keys = contents.keys + index * config_.window * key_bytes;
  std::byte* values = contents.values + index * config_.window * value_bytes;
  std::memset(keys, 0, static_cast<std::size_t>(config_.window * key_bytes));
  std::memset(values, 0, static_cast<std::size_t>(config_.window * value_bytes));
  std::vector<float> key(static_cast<std::size_t>(padded(config_.head_dim)));
  std::vector<float> value(static_cast<std::size_t>(columns_));
  for (std::int64_t slot = 0; slot < filled(index / config_.kv_heads); ++slot) {
    load_slot(from, slot, key.data(), value.data());
    store_row(key.data(), config_.head_dim, keys + slot * key_bytes, panel_dtype());
    store_row(value.data(), config_.value_dim, values + slot * value_bytes, config_.dtype);
  }
  const std::int64_t state_size = 2 * config_.head_dim * config_.value_dim;
  store_state(from.state, 2 * config_.head_dim, config_.value_dim, contents.states + index * state_size);
  store_state(from.excess, 2 * config_.head_dim, config_.value_dim, contents.excesses + index * state_size);
}

void RAttentionCache::read(const CacheContents& contents) {
  for (std::int64_t b = 0; b < config_.batch; ++b) {
    const std::int64_t length = contents.lengths[b];
    if (length < 0 || length > kMaxLength) {
      fail("the length of sequence " + std::to_string(b) + " must be from 0 to 2^40, got " + std::to_string(length));
    }
  }
  std::copy_n(contents.lengths, config_.batch, lengths_.begin());
  for (std::int64_t index = 0; index < heads(); ++index) read_head(index, contents);
}

void RAttentionCache::read_head(std::int64_t index, const CacheContents& contents) const {
  const CacheHead to = head(index);
  const std::int64_t size = size_of(config_.dtype);
  std::vector<float> key(static_cast<std::size_t>(padded(config_.head_dim)));
  std::vector<float> value(static_cast<std::size_t>(columns_));
  for (std::int64_t slot = 0; slot < filled(index / config_.kv_heads); ++slot) {
    const std::int64_t row = index * config_.window + slot;
    widen(contents.keys + row * config_.head_dim * size_of(panel_dtype()), panel_dtype(), config_.head_dim, key.data());
    widen(contents.values + row * config_.value_dim * size, config_.dtype, config_.value_dim, value.data());
    store_slot(to, slot, key.data(), value.data());
  }
  const std::int64_t state_size = 2 * config_.head_dim * config_.value_dim;
  load_state(contents.states + index * state_size, 2 * config_.head_dim, config_.value_dim, to.state);
  load_state(contents.excesses + index * state_size, 2 * config_.head_dim, config_.value_dim, to.excess);
}

}  // namespace rattention
