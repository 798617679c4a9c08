#include "softmax/score_tile.h"

#include <algorithm>
#include <cmath>

#include "core/numbers.h"

namespace rattention {
namespace {

// Largest scores below this lose less than one unit when they are rounded.
constexpr float kExactTop = 0x1p20F;

}  // namespace

std::int64_t ScoreTile::floats(const ScoreProblem& problem, std::int64_t query_rows, bool backward) {
  return problem.rule->floats(problem, query_rows, backward) + Scratch::round_up(kBlockRows * kStride) +
         2 * Scratch::round_up(kTileKeys) + Scratch::round_up(2 * kBlockRows * tile_kernels().lanes);
}

ScoreTile::ScoreTile(const ScoreProblem& problem, TileOperands& operands, std::int64_t query_rows, Scratch& scratch,
                     const RuleGradients* gradients)
    : problem_(problem),
      kernels_(tile_kernels()),
      operands_(operands),
      rule_(problem.rule->tile(problem, query_rows, gradients, scratch)),
      scores_(scratch.take(kBlockRows * kStride)),
      padding_flags_(reinterpret_cast<std::int32_t*>(scratch.take(kTileKeys))),
      row_flags_(reinterpret_cast<std::int32_t*>(scratch.take(kTileKeys))),
      maxima_(scratch.take(2 * kBlockRows * kernels_.lanes)) {}

void ScoreTile::load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span) {
  keys_ = span;
  look_at_masks(batch);
  operands_.load_keys(batch, kv_head, span);
}

void ScoreTile::look_at_masks(std::int64_t batch) {
  const Masks& masks = problem_.masks;
  if (masks.padding) {
    masks.padded(batch, keys_, padding_flags_);
    padded_before_.assign(1, 0);
    for (std::int64_t j = 0; j < keys_.size(); ++j) {
      padded_before_.push_back(padded_before_.back() + 1 + padding_flags_[j]);
    }
    all_padded_ = padded_before_.back() == keys_.size();
  }
  if (masks.segments != nullptr) {
    const std::int64_t* ids = masks.segments + batch * masks.key_length;
    const auto [lowest, highest] = std::minmax_element(ids + keys_.first, ids + keys_.last);
    lowest_segment_ = *lowest;
    highest_segment_ = *highest;
  }
}

// Of a row's own keys: what else is loaded depends on the task, and masks round scores of bfloat16 in another order.
bool ScoreTile::has_padding(KeySpan keys) const {
  if (!problem_.masks.padding) return false;
  const auto before = [this](std::int64_t key) { return padded_before_[static_cast<std::size_t>(key - keys_.first)]; };
  return before(keys.last) > before(keys.first);
}

KeySpan ScoreTile::span_of(std::int64_t batch, std::int64_t query_row) const {
  const KeySpan nothing{keys_.first, keys_.first};
  const Masks& masks = problem_.masks;
  const KeySpan span = masks.span(batch, query_row).intersect(keys_);
  if (span.empty() || all_padded_) return nothing;
  if (masks.segments != nullptr) {
    const std::int64_t id = masks.segments[batch * masks.key_length + masks.position(query_row)];
    if (id < lowest_segment_ || id > highest_segment_) return nothing;
  }
  return span;
}

void ScoreTile::score(std::int64_t batch, const QueryBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) spans_[r] = span_of(batch, problem_.query_row(block.first + r));
  rule_->load_keys(batch, block.head, keys_);
  score_panels(block);
  for (std::int64_t r = 0; r < block.rows; ++r) finish_row(batch, block, r);
}

KeySpan ScoreTile::panels_seen_by_all(const QueryBlock& block) const {
  KeySpan seen = keys_;
  for (std::int64_t r = 0; r < block.rows; ++r) seen = seen.intersect(spans_[r]);
  if (seen.empty()) return {keys_.first, keys_.first};
  const std::int64_t panel = kernels_.panel;
  const std::int64_t first = keys_.first + ceil_div(seen.first - keys_.first, panel) * panel;
  const std::int64_t last = keys_.first + (seen.last - keys_.first) / panel * panel;
  return {first, std::max(first, last)};
}

// A panel is scored for the rows from the first to the last that see some of it.
void ScoreTile::score_panels(const QueryBlock& block) {
  float* unused = maxima_ + kBlockRows * kernels_.lanes;
  std::fill(maxima_, maxima_ + block.rows * kernels_.lanes, -kInfinity);
  whole_ = panels_seen_by_all(block);
  for (std::int64_t key = keys_.first; key < keys_.last; key += kernels_.panel) {
    const KeySpan panel{key, key + kernels_.panel};
    std::int64_t first = 0;
    std::int64_t last = block.rows;
    while (first < last && spans_[first].intersect(panel).empty()) ++first;
    while (last > first && spans_[last - 1].intersect(panel).empty()) --last;
    if (first == last) continue;
    const bool whole = key >= whole_.first && key < whole_.last;
    operands_.score_panel(block, {first, last}, key - keys_.first, scores_, whole ? maxima_ : unused);
  }
}

void ScoreTile::finish_row(std::int64_t batch, const QueryBlock& block, std::int64_t r) {
  const KeySpan keys = spans_[r];
  visible_[r] = keys.size();
  unit_[r] = operands_.unit();
  float* scores = scores_of(r);
  const bool changed = !keys.empty() && add_terms(batch, block, r, scores);
  if (keys.size() % kernels_.lanes != 0)
    std::fill(scores + keys.size(), scores + keys.size() + kernels_.lanes, -kInfinity);
  const float top = changed || whole_.empty() ? kernels_.max(scores, keys.size()) : max_around_whole_panels(r);
  top_[r] = top * unit_[r];
  const bool exact = std::fabs(top_[r]) < kExactTop && unit_[r] > 0;  // 0 times the padding would be NaN
  if (!exact) apply_unit(r);
  unscaled_top_[r] = unit_[r] == 1 ? top_[r] : top;
}

// Of what was gathered while scores were made, and of the keys before and after.
float ScoreTile::max_around_whole_panels(std::int64_t r) {
  const KeySpan keys = spans_[r];
  float top = kernels_.max_lane(maxima_ + r * kernels_.lanes);
  if (keys.first < whole_.first) top = std::max(top, kernels_.max(at(r, keys.first), whole_.first - keys.first));
  if (keys.last > whole_.last) top = std::max(top, kernels_.max(at(r, whole_.last), keys.last - whole_.last));
  return top;
}

void ScoreTile::apply_unit(std::int64_t r) {
  if (unit_[r] != 1) kernels_.scale(scores_of(r), spans_[r].size(), unit_[r]);
  unit_[r] = 1;
}

// Score rule, biases and masks; returns whether any score changed.
bool ScoreTile::add_terms(std::int64_t batch, const QueryBlock& block, std::int64_t r, float* scores) {
  const KeySpan keys = spans_[r];
  const Masks& masks = problem_.masks;
  const std::int64_t query_row = problem_.query_row(block.first + r);
  const bool by_rule = problem_.rule->changes_products();
  const std::int32_t* shown = shown_flags(batch, block.head, query_row, keys);
  const bool biased = problem_.log_discount != nullptr || problem_.relative_bias;
  const bool changes = shown != nullptr || biased || by_rule;
  if (changes) apply_unit(r);
  if (by_rule) rule_->to_scores({batch, block.head, query_row, r, block.slot + r}, keys, scores);
  if (problem_.log_discount != nullptr) {
    const auto distance = static_cast<float>(keys.first - problem_.distance_origin(batch, query_row));
    const float slope = problem_.log_discount_of(batch, block.head, query_row);
    kernels_.add_distance(scores, keys.size(), distance, slope);
  }
  if (problem_.relative_bias) {
    problem_.relative_bias->add(block.head, keys.first - masks.position(query_row), keys.size(), scores);
  }
  if (shown != nullptr) {
    masks.add_bias(batch, block.head, query_row, keys, scores);
    visible_[r] = kernels_.hide(scores, shown, keys.size());
  }
  return changes;
}

float ScoreTile::to_weights_of(std::int64_t r, float shift) {
  const KeySpan keys = spans_[r];
  // The row's largest weight has to be exactly 1, whatever its format.
  const float unscaled = shift == top_[r] ? unscaled_top_[r] : shift / unit_[r];
  return operands_.to_weights(row(r), keys.first - keys_.first, keys.size(), unit_[r], unscaled);
}

void ScoreTile::clear_unseen(std::int64_t r, KeySpan keys) {
  const KeySpan seen = spans_[r].empty() ? KeySpan{keys.last, keys.last} : spans_[r];
  operands_.clear_weights(row(r), keys.first - keys_.first, seen.first - keys_.first);
  operands_.clear_weights(row(r), seen.last - keys_.first, keys.last - keys_.first);
}

float ScoreTile::weight_at(std::int64_t r, std::int64_t key) const {
  return operands_.weight_at(row(r), key - keys_.first);
}

void ScoreTile::to_weights(std::int64_t batch, const QueryBlock& block, std::int64_t r, double lse) {
  const KeySpan keys = spans_[r];
  const std::int64_t query_row = problem_.query_row(block.first + r);
  if (!std::isnan(lse)) {
    const double shift = lse - problem_.discount_left_out(batch, block.head, query_row);
    const auto high = static_cast<float>(shift);
    apply_unit(r);
    const float rest = std::isfinite(high) ? static_cast<float>(shift - high) : 0.0F;
    kernels_.exp_twice_shifted(scores_of(r), keys.size(), high, rest);
    return;
  }
  const std::int32_t* shown = shown_flags(batch, block.head, query_row, keys);
  float* weights = scores_of(r);
  for (std::int64_t j = 0; j < keys.size(); ++j) {
    weights[j] = shown == nullptr || shown[j] != 0 ? static_cast<float>(lse) : 0.0F;
  }
}

const std::int32_t* ScoreTile::shown_flags(std::int64_t batch, std::int64_t head, std::int64_t query_row,
                                           KeySpan keys) {
  const std::int32_t* unpadded = has_padding(keys) ? padding_flags_ + (keys.first - keys_.first) : nullptr;
  if (!problem_.masks.varies_by_row()) return unpadded;
  problem_.masks.visible(batch, head, query_row, keys, row_flags_);
  for (std::int64_t j = 0; unpadded != nullptr && j < keys.size(); ++j) row_flags_[j] &= unpadded[j];
  return row_flags_;
}

}  // namespace rattention
