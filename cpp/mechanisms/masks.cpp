#include "mechanisms/masks.h"

#include <algorithm>
#include <limits>

namespace rattention {
namespace {

const std::byte* dense_row(const DenseMask& mask, std::int64_t b, std::int64_t h, std::int64_t row) {
  return mask.data + b * mask.strides[0] + h * mask.strides[1] + row * mask.strides[2];
}

}  // namespace

KeySpan Masks::span(std::int64_t row) const {
  const std::int64_t at = position(row);
  KeySpan keys{0, key_length};
  if (left >= 0 && at > left) keys.first = at - left;
  if (right >= 0 && right < key_length - 1 - at) keys.last = std::max<std::int64_t>(0, at + right + 1);
  return keys;
}

void Masks::padded(std::int64_t b, KeySpan keys, std::int32_t* lanes) const {
  const std::byte* flags = padding->data + b * padding->strides[0] + keys.first * padding->strides[1];
  for (std::int64_t j = 0; j < keys.size(); ++j) lanes[j] = flags[j * padding->strides[1]] != std::byte{0} ? -1 : 0;
}

void Masks::visible(std::int64_t b, std::int64_t h, std::int64_t row, KeySpan keys, std::int32_t* lanes) const {
  const std::int64_t n = keys.size();
  std::fill(lanes, lanes + n, -1);
  if (segments != nullptr) {
    const std::int64_t* ids = segments + b * key_length;
    const std::int64_t own = ids[position(row)];
    for (std::int64_t j = 0; j < n; ++j) lanes[j] &= ids[keys.first + j] == own ? -1 : 0;
  }
  if (!dense) return;
  const std::byte* entries = dense_row(*dense, b, h, row) + keys.first * dense->strides[3];
  for (std::int64_t j = 0; j < n; ++j) {
    const std::byte* entry = entries + j * dense->strides[3];
    const bool shown = dense->boolean ? *entry != std::byte{0}
                                      : load_element(entry, dense->dtype) != -std::numeric_limits<float>::infinity();
    lanes[j] &= shown ? -1 : 0;
  }
}

void Masks::add_bias(std::int64_t b, std::int64_t h, std::int64_t row, KeySpan keys, float factor,
                     float* scores) const {
  if (!dense || dense->boolean) return;
  const std::byte* entries = dense_row(*dense, b, h, row) + keys.first * dense->strides[3];
  for (std::int64_t j = 0; j < keys.size(); ++j) {
    scores[j] += factor * load_element(entries + j * dense->strides[3], dense->dtype);
  }
}

}  // namespace rattention
