// What RAttention remembers of its sequences between calls: the last w keys and values in a ring, and the state of all
// keys before them. Its size does not depend on how many tokens went by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/scratch.h"
#include "core/tensor.h"
#include "kernels/rotary.h"
#include "linear/feature_map.h"

namespace rattention {

struct CacheConfig {
  std::int64_t batch = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t value_dim = 0;
  std::int64_t window = 0;
  FeatureMap feature_map = FeatureMap::softmax;
  RotaryRates rope;  // of the sliding window; empty = none
  DType dtype = DType::f32;
};

// The contents as contiguous arrays. Slot s of a ring has the last token whose position is s modulo the window.
struct CacheContents {
  std::int64_t* lengths;  // [batch]
  std::byte* keys;    // [batch, kv_heads, window, head_dim] as they are scored, in panel_dtype(); 0 where no token is
  std::byte* values;  // [batch, kv_heads, window, value_dim]
  float* states;      // [batch, kv_heads, 2 head_dim, value_dim]
  float* excesses;    // [batch, kv_heads, 2 head_dim, value_dim]
};

// The memory of one key/value head of one sequence. Rows of values and states are padded with zeros to whole vectors.
struct CacheHead {
  // Keys as they are scored, in panels as of TileKernels::pack_panel; RAttentionCache::panel_dtype(). The feature map
  // takes them as they came: they are turned back when they leave the ring.
  std::byte* panels;
  std::byte* values;  // [window][columns]
  // [features][columns]: the sum of phi(key)^T value over all keys that have left the ring, and what rounding has added
  // to it (RowKernels::add_compensated): the error does not grow with the number of tokens.
  float* state;
  float* excess;
};

class RAttentionCache {
 public:
  // std::invalid_argument for sizes that make no cache, std::bad_alloc where there is no memory for it.
  explicit RAttentionCache(const CacheConfig& config);
  RAttentionCache(const RAttentionCache& other);
  RAttentionCache& operator=(const RAttentionCache&) = delete;

  // Goes back to a copy made earlier, bit for bit; std::invalid_argument where that has another configuration.
  void restore(const RAttentionCache& copy);

  // The last n keys of sequence b as they came, oldest first: [kv_heads, n, head_dim] in the cache's dtype; n may not
  // exceed what is there.
  void recent_keys(std::int64_t b, std::int64_t n, std::byte* keys) const;
  void write(const CacheContents& contents) const;
  // std::invalid_argument where a length is negative or too large; nothing has changed then.
  void read(const CacheContents& contents);

  const CacheConfig& config() const { return config_; }
  const std::vector<std::int64_t>& lengths() const { return lengths_; }
  std::int64_t bytes() const;

  // What follows is for the kernels.
  std::int64_t heads() const { return config_.batch * config_.kv_heads; }
  CacheHead head(std::int64_t index) const;
  // Working memory of a call, kept for the next one; no part of the contents.
  Scratch& scratch() { return scratch_; }
  bool rotates() const { return !config_.rope.empty(); }
  // Turned keys stay float32 whatever the cache's dtype: rounded to 16 bits they would move large scores by whole
  // units. Keeping them as they came and turning them as they are read would save 2 bytes of 6 that an element of keys
  // and values takes, but scores would take 1.2 to 2.3 times as long (AVX-512, windows of 512 and 4096, 1 to 4 query
  // heads a key head).
  DType panel_dtype() const { return rotates() ? DType::f32 : config_.dtype; }
  // How keys turn: without factors, which would not always let them be turned back. Queries have both factors instead.
  const RotaryRates& turns() const { return turns_; }
  // Cosines and sines of a position, head_dim floats, and what they do to rows.
  void angles(std::int64_t position, float* angles) const { turns_.angles(position, angles); }
  void turn_key(float* key, const float* angles) const;
  void turn_query(float* query, const float* angles) const;
  // Turns a key back by the angles of its token; that of the token that leaves the ring by those of the token that
  // takes its slot.
  void turn_key_back(float* key, const float* angles) const;
  void turn_leaving_key_back(float* key, const float* angles) const;

  // Key (as it is scored) and value of a slot, padded with zeros.
  void load_slot(const CacheHead& kept, std::int64_t slot, float* key, float* value) const;
  // The same of the token at a position, but the key as it came; `rotary` has turns().
  void load_token(const CacheHead& kept, std::int64_t position, const Rotary& rotary, float* key, float* value) const;
  void store_slot(const CacheHead& kept, std::int64_t slot, const float* key, const float* value) const;
  // phi(key)^T value joins the state; `phi` is working memory for features.
  void fold(const CacheHead& kept, const float* key, const float* value, float* phi) const;
  // Counts n tokens of sequence b, after all its heads have them. std::invalid_argument beyond 2^40.
  void check_room(std::int64_t b, std::int64_t n) const;
  void advance(std::int64_t b, std::int64_t n) { lengths_[static_cast<std::size_t>(b)] += n; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };

  void lay_out_turns();
  void allocate();
  std::byte* in_panel(std::byte* panels, std::int64_t slot) const;
  // Keys came in the cache's dtype: with 16 bits, this makes one that was turned back the same again. In float32 each
  // pair of elements keeps an error of the size of its own rounding.
  void round_key(float* key) const;
  void write_head(std::int64_t index, const CacheContents& contents) const;
  void read_head(std::int64_t index, const CacheContents& contents) const;
  std::int64_t filled(std::int64_t b) const;

  CacheConfig config_;
  std::int64_t panel_;
  std::int64_t columns_;
  // Where the parts of one head begin, and the size of all, in bytes.
  std::int64_t values_at_, state_at_, excess_at_, head_bytes_;
  RotaryRates turns_;
  // Cosines and sines: of no angle; the same times the squares of the factors; of `window` tokens back.
  std::vector<float> no_turn_, factors_, window_back_;
  std::vector<std::int64_t> lengths_;
  std::unique_ptr<std::byte, Free> memory_;
  std::byte* heads_ = nullptr;  // in memory_, aligned
  Scratch scratch_;
};

}  // namespace rattention
