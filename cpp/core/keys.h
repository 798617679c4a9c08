// Spans of keys or rows along a sequence, and which keys a mask shows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace rattention {

// Keys [first, last) of a row; empty when first >= last.
struct KeySpan {
  std::int64_t first = 0;
  std::int64_t last = 0;

  bool empty() const { return first >= last; }
  std::int64_t size() const { return empty() ? 0 : last - first; }
  KeySpan intersect(KeySpan other) const {
    return {first > other.first ? first : other.first, last < other.last ? last : other.last};
  }
  // The smallest span around both; an empty span counts as nothing.
  KeySpan join(KeySpan other) const {
    if (other.empty()) return *this;
    if (empty()) return other;
    return {first < other.first ? first : other.first, last > other.last ? last : other.last};
  }
};

// [batch, key_length], non-zero = attend.
struct PaddingMask {
  const std::byte* data;
  std::array<std::int64_t, 2> strides;

  bool hides(std::int64_t b, std::int64_t j) const { return data[b * strides[0] + j * strides[1]] == std::byte{0}; }
};

}  // namespace rattention
