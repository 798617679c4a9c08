#include "softmax/masks.h"

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "kernels/rows.h"
#include "kernels/tile_kernels.h"

namespace rattention {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

// A float mask is widened in pieces that need no memory of the heap.
constexpr std::int64_t kPiece = 256;

const std::byte* dense_row(const DenseMask& mask, std::int64_t b, std::int64_t h, std::int64_t row, KeySpan keys) {
  return mask.data + b * mask.strides[0] + h * mask.strides[1] + row * mask.strides[2] + keys.first * mask.strides[3];
}

// Visits a row of a float mask as float32, piece by piece: use(first, floats, n).
template <typename Use>
void by_floats(const DenseMask& mask, const std::byte* entries, std::int64_t count, const Use& use) {
  float room[kPiece];
  for (std::int64_t first = 0; first < count; first += kPiece) {
    const std::int64_t n = std::min(kPiece, count - first);
    const std::byte* piece = entries + first * mask.strides[3];
    if (mask.strides[3] == size_of(mask.dtype)) {
      widen(piece, mask.dtype, n, room);
    } else {
      for (std::int64_t j = 0; j < n; ++j) room[j] = load_element(piece + j * mask.strides[3], mask.dtype);
    }
    use(first, room, n);
  }
}

}  // namespace

KeySpan Masks::span(std::int64_t b, std::int64_t row) const {
  const KeySpan keys = span_of_all(b, row);
  if (!part) return keys;
  if (keys.size() > part->size()) return keys.intersect(*part);
  return keys.first >= part->first && keys.first < part->last ? keys : KeySpan{};
}

KeySpan Masks::span_of_all(std::int64_t b, std::int64_t row) const {
  if (of_all_rows) return *of_all_rows;
  const std::int64_t at = position(row);
  KeySpan keys = reach(at);
  if (blocks) keys = keys.join(at_position(blocks, b, at, {}));
  if (within) keys = keys.intersect(at_position(within, b, at, keys));
  return keys;
}

KeySpan Masks::at_position(const PositionSpans& spans, std::int64_t b, std::int64_t at, KeySpan otherwise) const {
  return at < 0 || at >= key_length ? otherwise : (*spans)[static_cast<std::size_t>(b * key_length + at)];
}

KeySpan Masks::reach(std::int64_t at) const {
  KeySpan keys{0, key_length};
  if (left >= 0 && at > left) keys.first = at - left;
  if (right >= 0 && right < key_length - 1 - at) keys.last = std::max<std::int64_t>(0, at + right + 1);
  return keys;
}

void Masks::padded(std::int64_t b, KeySpan keys, std::int32_t* flags) const {
  const std::byte* shown = padding->data + b * padding->strides[0] + keys.first * padding->strides[1];
  for (std::int64_t j = 0; j < keys.size(); ++j) flags[j] = shown[j * padding->strides[1]] != std::byte{0} ? -1 : 0;
}

void Masks::visible(std::int64_t b, std::int64_t h, std::int64_t row, KeySpan keys, std::int32_t* flags) const {
  const std::int64_t n = keys.size();
  std::fill(flags, flags + n, -1);
  if (segments != nullptr) {
    const std::int64_t* ids = segments + b * key_length;
    const std::int64_t own = ids[position(row)];
    for (std::int64_t j = 0; j < n; ++j) flags[j] &= ids[keys.first + j] == own ? -1 : 0;
  }
  if (!dense) return;
  const std::byte* entries = dense_row(*dense, b, h, row, keys);
  const TileKernels& kernels = tile_kernels();
  if (!dense->boolean) {
    by_floats(*dense, entries, n, [&](std::int64_t first, const float* mask, std::int64_t count) {
      kernels.and_differs(mask, count, kHidden, flags + first);
    });
  } else if (dense->strides[3] == 1) {
    kernels.and_bytes(reinterpret_cast<const std::uint8_t*>(entries), n, flags);
  } else {
    for (std::int64_t j = 0; j < n; ++j) flags[j] &= entries[j * dense->strides[3]] != std::byte{0} ? -1 : 0;
  }
}

void Masks::add_bias(std::int64_t b, std::int64_t h, std::int64_t row, KeySpan keys, float* scores) const {
  if (!dense || dense->boolean) return;
  by_floats(*dense, dense_row(*dense, b, h, row, keys), keys.size(),
            [&](std::int64_t first, const float* mask, std::int64_t count) {
              tile_kernels().add(scores + first, mask, count);
            });
}

PositionSpans runs_of(const std::int64_t* ids, std::int64_t batch, std::int64_t key_length, std::int64_t least) {
  auto spans = std::make_shared<std::vector<KeySpan>>(static_cast<std::size_t>(batch * key_length));
  for (std::int64_t b = 0; b < batch; ++b, ids += key_length) {
    KeySpan* of = spans->data() + b * key_length;
    for (KeySpan run{0, 0}; run.first < key_length; run.first = run.last) {
      while (run.last < key_length && ids[run.last] == ids[run.first]) ++run.last;
      if (ids[run.first] >= least) std::fill(of + run.first, of + run.last, run);
    }
  }
  return spans;
}

void set_segments(const std::int64_t* ids, std::int64_t batch, Masks& masks) {
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t* own = ids + b * masks.key_length;
    std::unordered_set<std::int64_t> ended;
    for (std::int64_t j = 0; j < masks.key_length; ++j) {
      if (j > 0 && own[j] == own[j - 1]) continue;
      if (!ended.insert(own[j]).second) {
        masks.segments = ids;
        return;
      }
    }
  }
  masks.within = runs_of(ids, batch, masks.key_length);
}

}  // namespace rattention
