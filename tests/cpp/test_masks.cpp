// Visible keys by the rules, key by key, against what Masks says of spans and lanes.
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "softmax/masks.h"

namespace {

using rattention::KeySpan;
using rattention::Masks;

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

bool in_window(const Masks& masks, std::int64_t row, std::int64_t key) {
  const std::int64_t position = row + masks.query_offset;
  const bool left = masks.left == Masks::kUnlimited || position - key <= masks.left;
  const bool right = masks.right == Masks::kUnlimited || key - position <= masks.right;
  return left && right;
}

void spans_hold_exactly_the_keys_of_the_window() {
  for (const std::int64_t keys : {0, 1, 5, 9})
    for (const std::int64_t offset : {-3, 0, 2, 20})
      for (const std::int64_t left : {Masks::kUnlimited, std::int64_t{0}, std::int64_t{2}, kHuge})
        for (const std::int64_t right : {Masks::kUnlimited, std::int64_t{0}, std::int64_t{3}, kHuge}) {
          Masks masks;
          masks.key_length = keys;
          masks.query_offset = offset;
          masks.left = left;
          masks.right = right;
          for (std::int64_t row = 0; row < 6; ++row) {
            const KeySpan span = masks.span(0, row);
            for (std::int64_t key = 0; key < keys; ++key) {
              CHECK((key >= span.first && key < span.last) == in_window(masks, row, key));
            }
            CHECK(span.empty() || (span.first >= 0 && span.last <= keys));
          }
        }
}

void spans_join_and_intersect() {
  const KeySpan empty{5, 5};
  CHECK((KeySpan{2, 8}.intersect({4, 10}).size() == 4));
  CHECK((KeySpan{0, 2}.intersect({4, 6}).empty()));
  CHECK((KeySpan{0, 2}.intersect({4, 6}).size() == 0));
  CHECK((empty.join({1, 3}).first == 1 && empty.join({1, 3}).last == 3));
  CHECK((KeySpan{1, 3}.join(empty).last == 3));
  CHECK((KeySpan{1, 3}.join({7, 9}).size() == 8));
  CHECK(empty.join({7, 3}).last <= empty.last);
}

void padding_follows_its_strides() {
  const bool shown[2][4] = {{true, false, true, true}, {false, false, true, false}};
  Masks masks;
  masks.key_length = 4;
  masks.padding = rattention::PaddingMask{reinterpret_cast<const std::byte*>(shown), {4, 1}};
  CHECK(masks.has_holes());
  for (std::int64_t b = 0; b < 2; ++b) {
    std::vector<std::int32_t> lanes(3, 7);
    masks.padded(b, {1, 4}, lanes.data());
    for (std::size_t j = 0; j < 3; ++j) CHECK(lanes[j] == (shown[b][j + 1] ? -1 : 0));
  }
}

void segments_show_equal_ids_only() {
  const std::int64_t ids[6] = {4, 4, 9, 9, 9, 4};
  Masks masks;
  masks.key_length = 6;
  masks.query_offset = 2;
  masks.segments = ids;
  CHECK(masks.varies_by_row());
  for (std::int64_t row = 0; row < 4; ++row) {
    std::vector<std::int32_t> lanes(6);
    masks.visible(0, 0, row, {0, 6}, lanes.data());
    for (std::size_t j = 0; j < 6; ++j) CHECK(lanes[j] == (ids[j] == ids[row + 2] ? -1 : 0));
  }
}

void runs_of_ids_become_spans() {
  const std::int64_t ids[12] = {3, 3, -1, -1, 5, 3, /**/ 7, 7, 7, 7, 7, 0};
  const auto blocks = rattention::runs_of(ids, 2, 6, 0);
  const KeySpan wanted[12] = {{0, 2}, {0, 2}, {0, 0}, {0, 0}, {4, 5}, {5, 6},
                              {0, 5}, {0, 5}, {0, 5}, {0, 5}, {0, 5}, {5, 6}};
  for (std::size_t i = 0; i < 12; ++i) {
    CHECK((*blocks)[i].size() == wanted[i].size());
    CHECK(wanted[i].empty() || (*blocks)[i].first == wanted[i].first);
  }
}

void blocks_widen_spans_and_segments_cut_them() {
  const std::int64_t ids[8] = {0, 0, 0, 1, 1, 1, 1, -4};
  const std::int64_t blocks[8] = {-1, 2, 2, 2, 2, -1, 6, 6};
  for (const std::int64_t left : {Masks::kUnlimited, std::int64_t{0}, std::int64_t{2}}) {
    Masks masks;
    masks.key_length = 8;
    masks.left = left;
    masks.right = 0;
    masks.blocks = rattention::runs_of(blocks, 1, 8, 0);
    rattention::set_segments(ids, 1, masks);
    CHECK(masks.segments == nullptr && !masks.varies_by_row());
    for (std::int64_t row = 0; row < 8; ++row)
      for (std::int64_t key = 0; key < 8; ++key) {
        const bool in_block = blocks[row] >= 0 && blocks[row] == blocks[key];
        const KeySpan span = masks.span(0, row);
        const bool seen = span.first <= key && key < span.last;
        CHECK(seen == ((in_block || in_window(masks, row, key)) && ids[row] == ids[key]));
      }
  }
}

void segments_of_several_runs_are_looked_at_key_by_key() {
  const std::int64_t ids[6] = {0, 1, 0, 2, 2, 2};
  Masks masks;
  masks.key_length = 3;
  rattention::set_segments(ids, 2, masks);
  CHECK(masks.segments == ids && !masks.within);
}

void dense_masks_hide_and_add() {
  const float infinity = std::numeric_limits<float>::infinity();
  const float added[3] = {0.5F, -infinity, -2.0F};
  Masks masks;
  masks.key_length = 3;
  masks.dense = rattention::DenseMask{
      reinterpret_cast<const std::byte*>(added), false, rattention::DType::f32, {0, 0, 0, sizeof(float)}};
  std::int32_t lanes[3];
  masks.visible(0, 0, 0, {0, 3}, lanes);
  CHECK(lanes[0] == -1 && lanes[1] == 0 && lanes[2] == -1);
  float scores[3] = {1.0F, 1.0F, 1.0F};
  masks.add_bias(0, 0, 0, {0, 3}, scores);
  CHECK(scores[0] == 1.5F && scores[2] == -1.0F);
}

}  // namespace

int main() {
  return rattention::test::run({
      {"spans hold exactly the keys of the window", spans_hold_exactly_the_keys_of_the_window},
      {"spans join and intersect", spans_join_and_intersect},
      {"padding follows its strides", padding_follows_its_strides},
      {"segments show equal ids only", segments_show_equal_ids_only},
      {"runs of ids become spans", runs_of_ids_become_spans},
      {"blocks widen spans and segments cut them", blocks_widen_spans_and_segments_cut_them},
      {"segments of several runs are looked at key by key", segments_of_several_runs_are_looked_at_key_by_key},
      {"dense masks hide and add", dense_masks_hide_and_add},
  });
}
