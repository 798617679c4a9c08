#include "softmax/score_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/threads.h"
#include "kernels/rows.h"
#include "softmax/checks.h"

namespace rattention {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Largest scores below this lose less than one unit when they are rounded.
constexpr float kExactTop = 0x1p20F;

// Tasks per thread that let the dynamic schedule even out differences.
constexpr std::int64_t kTasksPerThread = 4;

QueryBlock query_block(const ScoreProblem& problem, std::int64_t head, std::int64_t first, std::int64_t last) {
  QueryBlock block;
  block.head = head;
  block.first = first;
  block.rows = last - first;
  for (std::int64_t r = first; r < last; ++r) {
    block.keys = block.keys.join(problem.masks.span(problem.query_row(r)));
  }
  return block;
}

}  // namespace

ScoreProblem scaled_dot_product(const TensorView& query, const TensorView& key) {
  check_query_and_key(query, key);
  ScoreProblem problem;
  problem.query = query;
  problem.key = key;
  problem.scale = 1.0F / std::sqrt(static_cast<float>(query.dim()));
  problem.masks.key_length = key.length();
  problem.masks.query_offset = key.length() - query.length();
  problem.row_count = query.length();
  return problem;
}

void Task::add(QueryBlock block) {
  block.slot = rows;
  rows += block.rows;
  keys = keys.join(block.keys);
  blocks.push_back(block);
}

TaskPlan::TaskPlan(const ScoreProblem& problem) : TaskPlan(problem, 0) {
  const std::int64_t even = ceil_div(heads_ * blocks_, kTasksPerThread * get_num_threads());
  parts_ = ceil_div(blocks_, std::clamp<std::int64_t>(even, 1, kTaskBlocks));
  last_first_ = true;
}

TaskPlan::TaskPlan(const ScoreProblem& problem, std::int64_t blocks_per_task) : problem_(problem) {
  if (problem.row_count == 0 || problem.query.heads() == 0 || problem.query.batch() == 0) return;
  heads_ = problem.key.batch() * problem.key.heads();
  blocks_ = problem.group() * ceil_div(problem.row_count, kBlockRows);
  if (blocks_per_task > 0) parts_ = ceil_div(blocks_, blocks_per_task);
}

QueryBlock TaskPlan::block(std::int64_t kv_head, std::int64_t index) const {
  const std::int64_t per_head = ceil_div(problem_.row_count, kBlockRows);
  const std::int64_t first = index % per_head * kBlockRows;
  return query_block(problem_, kv_head * problem_.group() + index / per_head, first,
                     std::min(first + kBlockRows, problem_.row_count));
}

Task row_task(const ScoreProblem& problem, std::int64_t batch, std::int64_t kv_head, KeySpan rows) {
  Task task;
  task.batch = batch;
  task.kv_head = kv_head;
  for (std::int64_t head = kv_head * problem.group(); head < (kv_head + 1) * problem.group(); ++head) {
    for (std::int64_t first = rows.first; first < rows.last; first += kBlockRows) {
      task.add(query_block(problem, head, first, std::min(first + kBlockRows, rows.last)));
    }
  }
  return task;
}

Task TaskPlan::task(std::int64_t index) const {
  Task task;
  task.part = index / heads_;
  task.lane = index % heads_;
  const std::int64_t part = last_first_ ? parts_ - 1 - task.part : task.part;
  task.batch = index % heads_ / problem_.key.heads();
  task.kv_head = index % heads_ % problem_.key.heads();
  for (std::int64_t i = part * blocks_ / parts_; i < (part + 1) * blocks_ / parts_; ++i) {
    task.add(block(task.kv_head, i));
  }
  return task;
}

std::int64_t ScoreTile::floats(const ScoreProblem& problem, std::int64_t query_rows, Format format) {
  return ScoreOperands::floats(problem, query_rows, format) + Scratch::round_up(kBlockRows * kStride) +
         3 * Scratch::round_up(kTileKeys) + Scratch::round_up(2 * kBlockRows * tile_kernels().lanes);
}

ScoreTile::ScoreTile(const ScoreProblem& problem, Scratch& scratch, std::int64_t query_rows, Format format)
    : problem_(problem),
      kernels_(tile_kernels()),
      operands_(problem, scratch, query_rows, format),
      scores_(scratch.take(kBlockRows * kStride)),
      lanes_(reinterpret_cast<std::int32_t*>(scratch.take(kTileKeys))),
      row_lanes_(reinterpret_cast<std::int32_t*>(scratch.take(kTileKeys))),
      masses_(scratch.take(kTileKeys)),
      maxima_(scratch.take(2 * kBlockRows * kernels_.lanes)) {}

void ScoreTile::load_keys(std::int64_t batch, std::int64_t kv_head, KeySpan span) {
  keys_ = span;
  look_at_masks(batch);
  operands_.load_keys(batch, kv_head, span);
}

void ScoreTile::look_at_masks(std::int64_t batch) {
  const Masks& masks = problem_.masks;
  if (masks.padding) {
    masks.padded(batch, keys_, lanes_);
    padded_before_.assign(1, 0);
    for (std::int64_t j = 0; j < keys_.size(); ++j) padded_before_.push_back(padded_before_.back() + 1 + lanes_[j]);
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
  const KeySpan span = masks.span(query_row).intersect(keys_);
  if (span.empty() || all_padded_) return nothing;
  if (masks.segments != nullptr) {
    const std::int64_t id = masks.segments[batch * masks.key_length + masks.position(query_row)];
    if (id < lowest_segment_ || id > highest_segment_) return nothing;
  }
  return span;
}

void ScoreTile::score(std::int64_t batch, const QueryBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) spans_[r] = span_of(batch, problem_.query_row(block.first + r));
  if (problem_.gravity) load_masses(batch, block.head);
  score_panels(block);
  for (std::int64_t r = 0; r < block.rows; ++r) finish_row(batch, block, r);
}

void ScoreTile::load_masses(std::int64_t batch, std::int64_t head) {
  const TensorView& mass = problem_.gravity->key_mass;
  const std::int64_t mass_head = problem_.gravity->mass_head(head, problem_.query.heads());
  for (std::int64_t j = 0; j < keys_.size(); ++j) {
    masses_[j] = load_element(mass.row(batch, mass_head, keys_.first + j), mass.dtype);
  }
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
    operands_.score_panel(block, {first, last}, key - keys_.first, {scores_, kStride, whole ? maxima_ : unused});
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

// Squared distances become scores.
void ScoreTile::add_gravity(std::int64_t batch, std::int64_t head, std::int64_t query_row, std::int64_t r,
                            float* scores) {
  const Gravity& gravity = *problem_.gravity;
  const KeySpan keys = spans_[r];
  const float query_mass = load_element(gravity.query_mass.row(batch, head, query_row), gravity.query_mass.dtype);
  const auto keep = [&] {
    if (distances_ != nullptr) std::copy(scores, scores + keys.size(), distances_of(r));
  };
  if (gravity.exponent != nullptr) {
    keep();
    if (gravity.exponent[head] != 2) kernels_.raise(scores, keys.size(), gravity.exponent[head] / 2);
  }
  kernels_.invert(scores, keys.size(), gravity.eps);
  if (gravity.exponent == nullptr) keep();
  kernels_.gravitate(scores, masses_ + (keys.first - keys_.first), keys.size(), gravity.strength[head] * query_mass);
}

// Gravity, discount and masks; returns whether any score changed.
bool ScoreTile::add_terms(std::int64_t batch, const QueryBlock& block, std::int64_t r, float* scores) {
  const KeySpan keys = spans_[r];
  const Masks& masks = problem_.masks;
  const std::int64_t query_row = problem_.query_row(block.first + r);
  if (problem_.gravity) add_gravity(batch, block.head, query_row, r, scores);
  const std::int32_t* shown = shown_lanes(batch, block.head, query_row, keys);
  const bool changes = shown != nullptr || problem_.log_discount != nullptr || problem_.gravity;
  if (changes) apply_unit(r);
  if (problem_.log_discount != nullptr) {
    const auto distance = static_cast<float>(keys.first - problem_.distance_origin(query_row));
    const float slope = problem_.log_discount_of(batch, block.head, query_row);
    kernels_.add_distance(scores, keys.size(), distance, slope);
  }
  if (shown != nullptr) {
    masks.add_bias(batch, block.head, query_row, keys, scores);
    visible_[r] = kernels_.hide(scores, shown, keys.size());
  }
  return changes;
}

float ScoreTile::to_weights_of(std::int64_t r, float shift) {
  const KeySpan keys = spans_[r];
  if (operands_.format() == Format::f32) return kernels_.exp(scores_of(r), keys.size(), shift);
  // The row's largest weight has to be exactly 1, in the sum and rounded to bfloat16 alike.
  const float unscaled = shift == top_[r] ? unscaled_top_[r] : shift / unit_[r];
  return bf16_kernels()->exp2(scores_of(r), keys.size(), unit_[r] * kLog2E, unscaled, rounded_at(r, keys.first));
}

void ScoreTile::clear_unseen(std::int64_t r, KeySpan keys) {
  const KeySpan seen = spans_[r].empty() ? KeySpan{keys.last, keys.last} : spans_[r];
  const auto clear = [&](auto* weights) {
    std::fill(weights, weights + (seen.first - keys.first), std::remove_reference_t<decltype(*weights)>{});
    std::fill(weights + (seen.last - keys.first), weights + keys.size(), std::remove_reference_t<decltype(*weights)>{});
  };
  if (operands_.format() == Format::f32) return clear(at(r, keys.first));
  clear(rounded_at(r, keys.first));
}

float ScoreTile::weight_at(std::int64_t r, std::int64_t key) const {
  const std::int64_t j = key - keys_.first;
  if (operands_.format() == Format::f32) return row(r)[j];
  return load_element(reinterpret_cast<const std::byte*>(row(r)) + 2 * j, DType::bf16);
}

void ScoreTile::to_weights(std::int64_t batch, const QueryBlock& block, std::int64_t r, double lse) {
  const KeySpan keys = spans_[r];
  const std::int64_t query_row = problem_.query_row(block.first + r);
  if (!std::isnan(lse)) {
    const double shift = lse - problem_.discount_left_out(batch, block.head, query_row);
    const auto high = static_cast<float>(shift);
    const float rest = std::isfinite(high) ? static_cast<float>(shift - high) : 0.0F;
    kernels_.exp_twice_shifted(scores_of(r), keys.size(), high, rest);
    return;
  }
  const std::int32_t* shown = shown_lanes(batch, block.head, query_row, keys);
  float* weights = scores_of(r);
  for (std::int64_t j = 0; j < keys.size(); ++j) {
    weights[j] = shown == nullptr || shown[j] != 0 ? static_cast<float>(lse) : 0.0F;
  }
}

const std::int32_t* ScoreTile::shown_lanes(std::int64_t batch, std::int64_t head, std::int64_t query_row,
                                           KeySpan keys) {
  const std::int32_t* unpadded = has_padding(keys) ? lanes_ + (keys.first - keys_.first) : nullptr;
  if (!problem_.masks.varies_by_row()) return unpadded;
  problem_.masks.visible(batch, head, query_row, keys, row_lanes_);
  for (std::int64_t j = 0; unpadded != nullptr && j < keys.size(); ++j) row_lanes_[j] &= unpadded[j];
  return row_lanes_;
}

}  // namespace rattention
