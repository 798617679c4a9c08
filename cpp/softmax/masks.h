// Which keys a query row may see. Masks compose by AND.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "core/keys.h"
#include "core/tensor.h"

namespace rattention {

// Broadcast to [batch, heads, query_length, key_length] by zero strides (bytes).
struct DenseMask {
  const std::byte* data;
  bool boolean;  // else floats of `dtype`, added to the scores
  DType dtype;
  std::array<std::int64_t, 4> strides;
};

// A range of keys for every position, [batch, key_length]; nullptr for none.
using PositionSpans = std::shared_ptr<const std::vector<KeySpan>>;

struct Masks {
  static constexpr std::int64_t kUnlimited = -1;

  std::int64_t key_length = 0;
  std::int64_t query_offset = 0;  // row i has position i + query_offset
  std::int64_t left = kUnlimited;
  std::int64_t right = kUnlimited;
  std::optional<PaddingMask> padding;
  const std::int64_t* segments = nullptr;  // contiguous [batch, key_length]
  std::optional<DenseMask> dense;
  PositionSpans within;  // rows see no more than that of their position: segments that are one run of keys each
  PositionSpans blocks;  // and all of that, whatever causality and window hide: blocks that see both sides
  // Of equal parts of the keys, that which counts. A row that sees no more keys than a part has is not cut, so that it
  // does not depend on other rows: the part of its first key has them all.
  std::optional<KeySpan> part;
  std::optional<KeySpan> of_all_rows;  // in place of causality, window, blocks and runs, where rows are heads

  std::int64_t position(std::int64_t row) const { return row + query_offset; }

  // What causality, window, blocks and runs leave of the keys, or of their part. Overflow-free for any int64 reach.
  KeySpan span(std::int64_t b, std::int64_t row) const;

  // Masks beyond the span: where both are false, a row sees its whole span.
  bool varies_by_row() const { return segments != nullptr || dense; }
  bool has_holes() const { return padding || varies_by_row(); }

  // Per key of [keys.first, keys.last): all bits set where the padding mask shows it, else 0.
  void padded(std::int64_t b, KeySpan keys, std::int32_t* flags) const;
  // The same for segments and dense mask of one row.
  void visible(std::int64_t b, std::int64_t h, std::int64_t row, KeySpan keys, std::int32_t* flags) const;

  // Adds a float mask to the row's scores of `keys`.
  void add_bias(std::int64_t b, std::int64_t h, std::int64_t row, KeySpan keys, float* scores) const;

 private:
  KeySpan span_of_all(std::int64_t b, std::int64_t row) const;
  KeySpan reach(std::int64_t at) const;
  KeySpan at_position(const PositionSpans& spans, std::int64_t b, std::int64_t at, KeySpan otherwise) const;
};

// The runs of equal ids, contiguous [batch, key_length], as spans of their positions; empty at ids below `least`.
PositionSpans runs_of(const std::int64_t* ids, std::int64_t batch, std::int64_t key_length,
                      std::int64_t least = std::numeric_limits<std::int64_t>::min());
// Hides keys of other segments than the row's own, by `within` where every segment is one run, else id by id.
void set_segments(const std::int64_t* ids, std::int64_t batch, Masks& masks);

}  // namespace rattention
