#include "rattention/rattention_prefill.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "core/threads.h"
#include "kernels/rotary.h"
#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "linear/residual_linear.h"
#include "rattention/norm_weights.h"
#include "softmax/softmax_attention.h"

namespace rattention {
namespace {

// Elements of one branch's output of a block: both branches stay in the second-level caches.
constexpr std::int64_t kBlockElements = 1 << 19;
constexpr std::int64_t kLeastBlockTokens = 256;

std::int64_t block_tokens(const StepProblem& problem) {
  const std::int64_t token = std::max<std::int64_t>(1, problem.query.heads() * problem.value.dim());
  return std::max(kLeastBlockTokens, kBlockElements / token);
}

// Rows [first, first + n) of sequence b.
TensorView part_of(const TensorView& view, std::int64_t b, std::int64_t first, std::int64_t n) {
  TensorView part = view.rows(first, first + n);
  part.data += b * view.strides[0];
  part.shape[0] = 1;
  return part;
}

// Consecutive new tokens of one sequence.
struct Block {
  std::int64_t sequence;
  std::int64_t first;  // among the new tokens
  std::int64_t tokens;
  std::int64_t position;  // of the first, in the sequence
  // Row i reads the state up to token position + i - window - 1. What is at hand has one key more before the first
  // block, as a cache has, and just what the last row read before the others.
  std::int64_t ahead;

  // Tokens before the block that its rows see, or that join the state meanwhile.
  std::int64_t context(std::int64_t window) const { return std::min(position, window + 1 - ahead); }
};

// A block's keys and values and those of its context: where the caller has them all, else copies.
class BlockRows {
 public:
  BlockRows(const StepProblem& problem, const RAttentionCache& cache, const Block& block) {
    context_ = block.context(cache.config().window);
    const std::int64_t rows = context_ + block.tokens;
    if (context_ <= block.first) {
      key = part_of(problem.key, block.sequence, block.first - context_, rows);
      value = part_of(problem.value, block.sequence, block.first - context_, rows);
      return;
    }
    key = reserve(problem.key, rows, &keys_);
    value = reserve(problem.value, rows, &values_);
    copy(problem, cache, block);
  }

  std::int64_t context() const { return context_; }

  // [1, kv_heads, context + tokens, dim]
  TensorView key;
  TensorView value;

 private:
  static TensorView reserve(const TensorView& like, std::int64_t rows, std::unique_ptr<float[]>* copies) {
    const std::int64_t width = padded(like.dim());
    copies->reset(new float[static_cast<std::size_t>(like.heads() * rows * width)]);
    const std::int64_t row = width * static_cast<std::int64_t>(sizeof(float));
    return {reinterpret_cast<const std::byte*>(copies->get()),
            DType::f32,
            {1, like.heads(), rows, like.dim()},
            {like.heads() * rows * row, rows * row, row, sizeof(float)}};
  }

  void copy(const StepProblem& problem, const RAttentionCache& cache, const Block& block) {
    const std::int64_t key_width = padded(key.dim());
    const std::int64_t value_width = padded(value.dim());
    const std::int64_t rows = key.length();
    const std::int64_t old = context_ - block.first;  // rows that the ring has
    const std::int64_t oldest = block.position - context_;
    parallel_for(key.heads(), [&](std::int64_t head) {
      const CacheLane lane = cache.lane(block.sequence * key.heads() + head);
      for (std::int64_t i = 0; i < rows; ++i) {
        float* k = keys_.get() + (head * rows + i) * key_width;
        float* v = values_.get() + (head * rows + i) * value_width;
        if (i < old) {
          cache.load_slot(lane, (oldest + i) % cache.config().window, k, v);
        } else {
          load_row(problem.key, block.sequence, head, i - old, k, key_width);
          load_row(problem.value, block.sequence, head, i - old, v, value_width);
        }
      }
    });
  }

  std::int64_t context_;
  std::unique_ptr<float[]> keys_;
  std::unique_ptr<float[]> values_;
};

// Sliding-window attention of the block's rows.
void local_rows(const StepProblem& problem, const CacheConfig& config, const Block& block, const BlockRows& rows,
                const OutputView& output) {
  ScoreProblem score = scaled_dot_product(part_of(problem.query, block.sequence, block.first, block.tokens), rows.key);
  score.scale = problem.scale;
  score.masks.left = config.window;
  score.masks.right = 0;
  // Scores depend on distances alone: positions may count from the first key.
  std::optional<Rotary> rotary;
  if (config.rope_theta != 0) {
    score.rotary = &rotary.emplace(config.head_dim, config.rope_theta, 0, rows.key.length());
  }
  SoftmaxForward want;
  want.value = &rows.value;
  want.output = &output;
  softmax_forward(score, want);
}

// States of one or all sequences as the linear family takes them, [..., kv_heads, 2 head_dim, value_dim].
struct States {
  float* sums;
  float* excesses;
};

// Residual linear attention of the block's rows; the states go on to what its last row reads.
void linear_rows(const StepProblem& problem, const CacheConfig& config, const Block& block, const BlockRows& rows,
                 const OutputView& output, const States& states) {
  // Row i reads keys of the context from the first to the (i - delay)-th.
  const std::int64_t delay = std::max(block.ahead, config.window + 1 - block.position);
  LinearProblem linear;
  linear.query = part_of(problem.query, block.sequence, block.first, block.tokens);
  linear.key = part_of(rows.key, 0, 0, block.tokens);
  linear.value = part_of(rows.value, 0, 0, block.tokens);
  linear.feature_map = config.feature_map;
  linear.window = std::min(delay - 1, block.tokens);
  linear.state_heads = config.kv_heads;
  if (block.position > config.window) {
    linear.initial_state = states.sums;
    linear.initial_excess = states.excesses;
  }
  const std::int64_t size = config.kv_heads * linear.user_state_size();
  std::vector<float> finals(static_cast<std::size_t>(2 * size));
  LinearForward want;
  want.output = &output;
  want.final_state = finals.data();
  want.final_excess = finals.data() + size;
  linear_forward(linear, ScanPlan(linear), want);
  std::copy_n(want.final_state, size, states.sums);
  std::copy_n(want.final_excess, size, states.excesses);
}

// A branch's rows of one block, [1, heads, tokens, value_dim].
class BranchRows {
 public:
  BranchRows(const StepProblem& problem, std::int64_t tokens)
      : shape_{1, problem.query.heads(), tokens, problem.value.dim()},
        rows_(new float[static_cast<std::size_t>(shape_[1] * shape_[2] * shape_[3])]) {}

  OutputView view(std::int64_t tokens) {
    shape_[2] = tokens;
    return output_of(rows_.get(), shape_);
  }

 private:
  std::array<std::int64_t, 4> shape_;
  std::unique_ptr<float[]> rows_;
};

void load_padded(const float* row, std::int64_t n, float* padded_row) {
  std::copy_n(row, n, padded_row);
  std::fill(padded_row + n, padded_row + padded(n), 0.0F);
}

struct Norms {
  explicit Norms(const StepProblem& problem)
      : local(problem.local_norm_weight, problem.query.heads(), problem.value.dim()),
        linear(problem.linear_norm_weight, problem.query.heads(), problem.value.dim()) {}

  NormWeights local;
  NormWeights linear;
};

// RMSNorm(local) + RMSNorm(linear) of the block's rows.
void join_rows(const StepProblem& problem, const Norms& norms, const Block& block, const OutputView& local,
               const OutputView& linear, const OutputView& output) {
  const std::int64_t dim = problem.value.dim();
  parallel_for(problem.query.heads(), [&](std::int64_t head) {
    Scratch& scratch = thread_scratch();
    scratch.reset(2 * Scratch::round_up(padded(dim)));
    float* near = scratch.take(padded(dim));
    float* far = scratch.take(padded(dim));
    for (std::int64_t i = 0; i < block.tokens; ++i) {
      load_padded(reinterpret_cast<const float*>(local.row(0, head, i)), dim, near);
      load_padded(reinterpret_cast<const float*>(linear.row(0, head, i)), dim, far);
      row_kernels().add_rms_norms(near, norms.local.of(head), far, norms.linear.of(head), dim, problem.eps, near);
      store_row(near, dim, output.row(block.sequence, head, block.first + i), output.dtype);
    }
  });
}

// The states of all sequences while the new tokens join them. All memory is reserved by the constructor.
class NewStates {
 public:
  NewStates(const StepProblem& problem, const RAttentionCache& cache)
      : problem_(problem),
        cache_(cache),
        config_(cache.config()),
        size_(2 * config_.head_dim * config_.value_dim),
        sums_(new float[static_cast<std::size_t>(cache.lanes() * size_)]),
        excesses_(new float[static_cast<std::size_t>(cache.lanes() * size_)]),
        row_(new float[static_cast<std::size_t>(3 * padded(config_.head_dim) + padded(config_.value_dim))]) {
    for (std::int64_t index = 0; index < cache.lanes(); ++index) {
      const CacheLane lane = cache.lane(index);
      store_state(lane.state, config_.head_dim, config_.value_dim, sums_.get() + index * size_);
      store_state(lane.excess, config_.head_dim, config_.value_dim, excesses_.get() + index * size_);
    }
  }

  States of(std::int64_t b) const {
    const std::int64_t at = b * config_.kv_heads * size_;
    return {sums_.get() + at, excesses_.get() + at};
  }

  // Back into the cache, and on to what the next row reads. The rings must be as they were.
  void store() const {
    for (std::int64_t index = 0; index < cache_.lanes(); ++index) {
      const std::int64_t b = index / config_.kv_heads;
      if (problem_.count(b) == 0) continue;
      const CacheLane lane = cache_.lane(index);
      load_state(sums_.get() + index * size_, config_.head_dim, config_.value_dim, lane.state);
      load_state(excesses_.get() + index * size_, config_.head_dim, config_.value_dim, lane.excess);
      add_next(lane, b, index % config_.kv_heads);
    }
  }

 private:
  void add_next(const CacheLane& lane, std::int64_t b, std::int64_t kv_head) const {
    const std::int64_t before = cache_.lengths()[static_cast<std::size_t>(b)];
    const std::int64_t next = before + problem_.count(b) - config_.window - 1;
    if (next < 0) return;
    const std::int64_t width = padded(config_.head_dim);
    float* key = row_.get();
    float* value = key + 3 * width;
    if (next < before) {
      cache_.load_slot(lane, next % config_.window, key, value);
    } else {
      load_row(problem_.key, b, kv_head, next - before, key, width);
      load_row(problem_.value, b, kv_head, next - before, value, padded(config_.value_dim));
    }
    cache_.fold(lane, key, value, key + width);
  }

  const StepProblem& problem_;
  const RAttentionCache& cache_;
  const CacheConfig& config_;
  const std::int64_t size_;
  std::unique_ptr<float[]> sums_;
  std::unique_ptr<float[]> excesses_;
  std::unique_ptr<float[]> row_;
};

// Puts the last new tokens into the rings. All memory is reserved by the constructor.
class RingWriter {
 public:
  RingWriter(const StepProblem& problem, const RAttentionCache& cache)
      : problem_(problem),
        cache_(cache),
        key_width_(padded(problem.key.dim())),
        value_width_(padded(problem.value.dim())),
        floats_(3 * key_width_ + value_width_),
        parts_((std::min(problem.key.length(), cache.config().window) + kTokens - 1) / kTokens),
        memory_(new float[static_cast<std::size_t>(problem.key.batch() * parts_ * floats_)]) {}

  void run() const {
    const auto part = [this](std::int64_t index) {
      write(index / parts_, index % parts_, memory_.get() + index * floats_);
    };
    parallel_for(problem_.key.batch() * parts_, [&part](std::int64_t index) { part(index); });
  }

 private:
  static constexpr std::int64_t kTokens = 64;

  void write(std::int64_t b, std::int64_t part, float* memory) const {
    const std::int64_t count = problem_.count(b);
    const std::int64_t kept = std::min(count, cache_.config().window);
    const std::int64_t before = cache_.lengths()[static_cast<std::size_t>(b)];
    const std::int64_t first = count - kept + part * kTokens;
    for (std::int64_t i = first; i < std::min(first + kTokens, count); ++i) write_token(b, i, before + i, memory);
  }

  void write_token(std::int64_t b, std::int64_t i, std::int64_t position, float* key) const {
    float* rotated = key + key_width_;
    float* angles = rotated + key_width_;
    float* value = angles + key_width_;
    if (cache_.rotates()) cache_.angles(position, angles);
    for (std::int64_t head = 0; head < problem_.key.heads(); ++head) {
      load_row(problem_.key, b, head, i, key, key_width_);
      load_row(problem_.value, b, head, i, value, value_width_);
      std::copy_n(key, key_width_, rotated);
      if (cache_.rotates()) cache_.rotate(rotated, angles);
      cache_.store_slot(cache_.lane(b * problem_.key.heads() + head), position % cache_.config().window, key, rotated,
                        value);
    }
  }

  const StepProblem& problem_;
  const RAttentionCache& cache_;
  const std::int64_t key_width_;
  const std::int64_t value_width_;
  const std::int64_t floats_;
  const std::int64_t parts_;
  std::unique_ptr<float[]> memory_;
};

}  // namespace

void rattention_prefill(const StepProblem& problem, RAttentionCache& cache, const OutputView& output) {
  const CacheConfig& config = cache.config();
  const std::int64_t most = std::min(block_tokens(problem), problem.query.length());
  BranchRows local(problem, most);
  BranchRows linear(problem, most);
  const Norms norms(problem);
  NewStates states(problem, cache);
  for (std::int64_t b = 0; b < config.batch; ++b) {
    const std::int64_t before = cache.lengths()[static_cast<std::size_t>(b)];
    for (std::int64_t first = 0; first < problem.count(b); first += most) {
      const std::int64_t tokens = std::min(most, problem.count(b) - first);
      const Block block{b, first, tokens, before + first, first == 0 ? 1 : 0};
      const BlockRows rows(problem, cache, block);
      local_rows(problem, config, block, rows, local.view(tokens));
      linear_rows(problem, config, block, rows, linear.view(tokens), states.of(b));
      join_rows(problem, norms, block, local.view(tokens), linear.view(tokens), output);
    }
  }
  const RingWriter ring(problem, cache);
  // From here on nothing fails.
  const Interrupts none(nullptr);
  states.store();
  ring.run();
}

}  // namespace rattention
