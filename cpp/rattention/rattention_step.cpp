#include "rattention/rattention_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/checks.h"
#include "core/numbers.h"
#include "core/threads.h"
#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "kernels/tile_kernels.h"
#include "rattention/norm_weights.h"
#include "rattention/rattention_prefill.h"
#include "softmax/checks.h"
#include "softmax/score_tiles.h"

namespace rattention {
namespace {

// One thread reads as much as this in about 0.1 ms. With less, a second one saves little where cores are idle, and
// costs a time slice of several milliseconds where other programs keep them busy.
constexpr std::int64_t kParallelBytes = 4 << 20;

// From so many tokens of a sequence on, blocks of rows are faster than one row after the other.
constexpr std::int64_t kPrefillTokens = 32;

void check_extent(const char* name, const char* axis, std::int64_t came, std::int64_t wanted) {
  if (came == wanted) return;
  fail(std::string(name) + " has " + axis + " " + std::to_string(came) + ", the cache has " + std::to_string(wanted));
}

void check(const StepProblem& problem, const RAttentionCache& cache) {
  const CacheConfig& config = cache.config();
  for (const TensorView* view : {&problem.query, &problem.key, &problem.value}) {
    if (view->dtype == config.dtype) continue;
    fail(std::string("query, key and value must be ") + name_of(config.dtype) + " as the cache is, got " +
         name_of(view->dtype));
  }
  check_query_and_key(problem.query, problem.key);
  check_value(problem.key, problem.value);
  check_extent("key", "batch", problem.key.batch(), config.batch);
  check_extent("key", "heads", problem.key.heads(), config.kv_heads);
  check_extent("key", "head_dim", problem.key.dim(), config.head_dim);
  check_extent("value", "value_dim", problem.value.dim(), config.value_dim);
  if (problem.query.length() != problem.key.length()) {
    fail("key has length " + std::to_string(problem.key.length()) + ", query has " +
         std::to_string(problem.query.length()) + "; a step takes as many of each");
  }
  for (std::int64_t b = 0; b < config.batch; ++b) {
    if (problem.count(b) < 0 || problem.count(b) > problem.query.length()) {
      fail("lengths holds " + std::to_string(problem.count(b)) + "; sequences have 0 to " +
           std::to_string(problem.query.length()) + " new tokens");
    }
    cache.check_room(b, problem.count(b));
  }
}

// What all lanes of a call read.
struct Shared {
  const float* angles;         // [batch][tokens][head_dim]
  const float* local_weight;   // [heads][columns]
  const float* linear_weight;  // [heads][columns]
};

// Cuts pieces that start on cache lines off a block of memory.
class Pieces {
 public:
  explicit Pieces(float* memory) : next_(memory) {}
  float* take(std::int64_t floats) {
    float* piece = next_;
    next_ += Scratch::round_up(floats);
    return piece;
  }
  std::int64_t since(const float* memory) const { return next_ - memory; }

 private:
  float* next_;
};

// The new tokens of one key/value head of one sequence, in order. Nothing here can fail.
class LaneStep {
 public:
  LaneStep(const StepProblem& problem, const RAttentionCache& cache, const OutputView& output, const Shared& shared)
      : problem_(problem), cache_(cache), config_(cache.config()), output_(output), shared_(shared) {}

  // Lays out the working memory; returns how many floats it takes.
  std::int64_t lay_out(float* memory) {
    Pieces pieces(memory);
    const std::int64_t dim = padded(config_.head_dim);
    plain_queries_ = pieces.take(group_ * dim);
    queries_ = pieces.take(group_ * config_.head_dim);
    phi_ = pieces.take(group_ * 2 * dim);
    scores_ = pieces.take(group_ * ScoreTile::kStride);
    maxima_ = pieces.take(group_ * kernels_.lanes);
    top_ = pieces.take(group_);
    total_ = pieces.take(group_);
    local_ = pieces.take(group_ * columns_);
    linear_ = pieces.take(group_ * columns_);
    key_ = pieces.take(dim);
    rotated_ = pieces.take(dim);
    value_ = pieces.take(columns_);
    old_key_ = pieces.take(dim);
    old_value_ = pieces.take(columns_);
    wide_ = pieces.take(config_.dtype == DType::f32 ? 0 : kernels_.panel * std::max(config_.head_dim, columns_));
    return pieces.since(memory);
  }

  void run(std::int64_t lane) {
    lane_ = cache_.lane(lane);
    batch_ = lane / config_.kv_heads;
    kv_head_ = lane % config_.kv_heads;
    const std::int64_t before = cache_.lengths()[static_cast<std::size_t>(batch_)];
    for (std::int64_t i = 0; i < problem_.count(batch_); ++i) token(i, before + i);
  }

 private:
  void token(std::int64_t i, std::int64_t position) {
    load(i);
    attend(std::min(position, config_.window));
    read_state(position > config_.window);
    store(i);
    remember(position);
  }

  void load(std::int64_t i) {
    const std::int64_t dim = config_.head_dim;
    const float* angles = cache_.rotates() ? shared_.angles + (batch_ * problem_.query.length() + i) * dim : nullptr;
    for (std::int64_t g = 0; g < group_; ++g) {
      float* plain = plain_queries_ + g * padded(dim);
      float* scored = queries_ + g * dim;
      load_row(problem_.query, batch_, kv_head_ * group_ + g, i, plain, padded(dim));
      std::copy_n(plain, dim, scored);
      if (angles != nullptr) cache_.rotate(scored, angles);
      kernels_.scale(scored, dim, problem_.scale);
    }
    load_row(problem_.key, batch_, kv_head_, i, key_, padded(dim));
    load_row(problem_.value, batch_, kv_head_, i, value_, columns_);
    std::copy_n(key_, dim, rotated_);
    if (angles != nullptr) cache_.rotate(rotated_, angles);
  }

  // The token itself, then the ring tile by tile.
  void attend(std::int64_t filled) {
    std::fill_n(top_, group_, -kInfinity);
    std::fill_n(total_, group_, 0.0F);
    std::fill_n(local_, group_ * columns_, 0.0F);
    for (std::int64_t g = 0; g < group_; ++g) {
      scores_[g * ScoreTile::kStride] = kernels_.dot(queries_ + g * config_.head_dim, rotated_, config_.head_dim);
    }
    weigh(1);
    kernels_.multiply_add({scores_, ScoreTile::kStride}, group_, 1, value_, columns_, columns_, local_, columns_);
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

  void score(std::int64_t first, std::int64_t slots) {
    const std::int64_t items = kernels_.panel * config_.head_dim;
    for (std::int64_t j = 0; j < slots; j += kernels_.panel) {
      const float* panel = wide(lane_.panels, cache_.panel_dtype(), (first + j) / kernels_.panel * items, items);
      kernels_.score_panel(queries_, group_, config_.head_dim, panel, scores_ + j, ScoreTile::kStride, maxima_);
    }
  }

  // Online softmax: scores of the next n slots become weights relative to the highest score so far.
  void weigh(std::int64_t n) {
    for (std::int64_t g = 0; g < group_; ++g) {
      float* scores = scores_ + g * ScoreTile::kStride;
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

  void add_values(std::int64_t first, std::int64_t slots) {
    const std::int64_t step = config_.dtype == DType::f32 ? slots : kernels_.panel;
    for (std::int64_t j = 0; j < slots; j += step) {
      const std::int64_t n = std::min(step, slots - j);
      const float* values = wide(lane_.values, config_.dtype, (first + j) * columns_, n * columns_);
      kernels_.multiply_add({scores_ + j, ScoreTile::kStride}, group_, n, values, columns_, columns_, local_, columns_);
    }
  }

  // n elements of the ring as float32.
  const float* wide(const std::byte* ring, DType dtype, std::int64_t at, std::int64_t n) {
    const std::byte* first = ring + at * size_of(dtype);
    if (dtype == DType::f32) return reinterpret_cast<const float*>(first);
    widen(first, dtype, n, wide_);
    return wide_;
  }

  void read_state(bool any) {
    std::fill_n(linear_, group_ * columns_, 0.0F);
    if (!any) return;
    apply_feature_map(config_.feature_map, plain_queries_, group_, config_.head_dim, phi_);
    add_state_rows(phi_, group_, config_.head_dim, lane_.state, columns_, linear_);
  }

  void store(std::int64_t i) {
    for (std::int64_t g = 0; g < group_; ++g) {
      const std::int64_t head = kv_head_ * group_ + g;
      float* row = local_ + g * columns_;
      row_kernels().add_rms_norms(row, shared_.local_weight + head * columns_, linear_ + g * columns_,
                                  shared_.linear_weight + head * columns_, config_.value_dim, problem_.eps, row);
      store_row(row, config_.value_dim, output_.row(batch_, head, i), output_.dtype);
    }
  }

  // The token takes the place of the one w before it, which goes into the state.
  void remember(std::int64_t position) {
    if (config_.window == 0) {
      cache_.fold(lane_, key_, value_, phi_);
      return;
    }
    const std::int64_t slot = position % config_.window;
    if (position >= config_.window) {
      cache_.load_slot(lane_, slot, old_key_, old_value_);
      cache_.fold(lane_, old_key_, old_value_, phi_);
    }
    cache_.store_slot(lane_, slot, key_, rotated_, value_);
  }

  const StepProblem& problem_;
  const RAttentionCache& cache_;
  const CacheConfig& config_;
  const OutputView& output_;
  const Shared& shared_;
  const TileKernels& kernels_ = tile_kernels();
  const std::int64_t group_ = config_.kv_heads == 0 ? 0 : problem_.query.heads() / config_.kv_heads;
  const std::int64_t columns_ = padded(config_.value_dim);
  CacheLane lane_{};
  std::int64_t batch_ = 0;
  std::int64_t kv_head_ = 0;
  float* plain_queries_ = nullptr;  // as they came
  float* queries_ = nullptr;        // turned and scaled, for the scores
  float* phi_ = nullptr;
  float* scores_ = nullptr;  // of one tile
  float* maxima_ = nullptr;
  float* top_ = nullptr;    // largest score so far
  float* total_ = nullptr;  // sum of weights so far
  float* local_ = nullptr;
  float* linear_ = nullptr;
  float* key_ = nullptr;
  float* rotated_ = nullptr;
  float* value_ = nullptr;
  float* old_key_ = nullptr;
  float* old_value_ = nullptr;
  float* wide_ = nullptr;
};

// Zeros where a sequence has no token.
void clear_absent(const StepProblem& problem, const OutputView& output) {
  const std::int64_t row_bytes = output.shape[3] * size_of(output.dtype);
  for (std::int64_t b = 0; b < problem.query.batch(); ++b) {
    const std::int64_t absent = problem.query.length() - problem.count(b);
    for (std::int64_t h = 0; absent > 0 && h < problem.query.heads(); ++h) {
      std::memset(output.row(b, h, problem.count(b)), 0, static_cast<std::size_t>(absent * row_bytes));
    }
  }
}

// What all lanes read, and a piece of working memory for each lane: reserved before the cache changes.
class CallMemory {
 public:
  CallMemory(const StepProblem& problem, RAttentionCache& cache, std::int64_t lane_floats) {
    const CacheConfig& config = cache.config();
    const std::int64_t tokens = problem.query.length();
    const std::int64_t angles = cache.rotates() ? config.batch * tokens * config.head_dim : 0;
    const std::int64_t weights = problem.query.heads() * padded(config.value_dim);
    Scratch& scratch = cache.scratch();
    scratch.reset(Scratch::round_up(angles) + 2 * Scratch::round_up(weights) + cache.lanes() * lane_floats);
    float* turns = scratch.take(angles);
    float* local_weight = scratch.take(weights);
    float* linear_weight = scratch.take(weights);
    lanes_ = scratch.take(cache.lanes() * lane_floats);
    lane_floats_ = lane_floats;
    for (std::int64_t b = 0; b < config.batch && angles > 0; ++b) {
      const std::int64_t position = cache.lengths()[static_cast<std::size_t>(b)];
      for (std::int64_t i = 0; i < problem.count(b); ++i) {
        cache.angles(position + i, turns + (b * tokens + i) * config.head_dim);
      }
    }
    load_norm_weights(problem.local_norm_weight, problem.query.heads(), config.value_dim, local_weight);
    load_norm_weights(problem.linear_norm_weight, problem.query.heads(), config.value_dim, linear_weight);
    shared_ = {turns, local_weight, linear_weight};
  }

  const Shared& shared() const { return shared_; }
  float* lane(std::int64_t index) const { return lanes_ + index * lane_floats_; }

 private:
  Shared shared_;
  float* lanes_;
  std::int64_t lane_floats_;
};

// What a call reads of the cache.
std::int64_t bytes_read(const StepProblem& problem, const RAttentionCache& cache) {
  const std::int64_t lane_bytes = cache.bytes() / std::max<std::int64_t>(1, cache.lanes());
  return cache.lanes() * lane_bytes * problem.query.length();
}

void step_by_step(const StepProblem& problem, RAttentionCache& cache, const OutputView& output) {
  LaneStep sizes(problem, cache, output, {});
  const CallMemory memory(problem, cache, sizes.lay_out(nullptr));
  const auto run_lane = [&](std::int64_t index) {
    LaneStep lane(problem, cache, output, memory.shared());
    lane.lay_out(memory.lane(index));
    lane.run(index);
  };
  const Interrupts none(nullptr);  // the cache changes token by token
  if (bytes_read(problem, cache) >= kParallelBytes) {
    parallel_for(cache.lanes(), [&run_lane](std::int64_t index) { run_lane(index); });
  } else {
    const std::int64_t lanes = cache.lanes();
    parallel_for(1, [&run_lane, lanes](std::int64_t) {
      for (std::int64_t index = 0; index < lanes; ++index) run_lane(index);
    });
  }
}

std::int64_t most_tokens(const StepProblem& problem) {
  std::int64_t most = 0;
  for (std::int64_t b = 0; b < problem.query.batch(); ++b) most = std::max(most, problem.count(b));
  return most;
}

}  // namespace

void rattention_step(const StepProblem& problem, RAttentionCache& cache, const OutputView& output) {
  check(problem, cache);
  clear_absent(problem, output);
  if (most_tokens(problem) >= kPrefillTokens) {
    rattention_prefill(problem, cache, output);
  } else {
    step_by_step(problem, cache, output);
  }
  for (std::int64_t b = 0; b < cache.config().batch; ++b) cache.advance(b, problem.count(b));
}

}  // namespace rattention
