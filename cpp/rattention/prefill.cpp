#include "rattention/prefill.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "core/threads.h"
#include "kernels/rows.h"
#include "linear/residual_linear.h"
#include "rattention/branches.h"
#include "rattention/norm_join.h"

namespace rattention {
namespace {

// Tokens at once: enough that their ends cost nothing, few enough that the memory for states stays small.
constexpr std::int64_t kBlockTokens = 8192;
// The same where keys and values have to be copied beside those of the ring.
constexpr std::int64_t kCopiedTokens = 1024;

// Rows [first, first + n) of sequence b.
TensorView tokens_of(const TensorView& view, std::int64_t b, std::int64_t first, std::int64_t n) {
  TensorView tokens = view.rows(first, first + n);
  tokens.data += b * view.strides[0];
  tokens.shape[0] = 1;
  return tokens;
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

// Of the block that starts at new token `first`. Behind one that reads the ring, blocks find their context among the
// new tokens.
std::int64_t most_tokens(const CacheConfig& config, std::int64_t first, std::int64_t before) {
  const bool reads_ring = first == 0 && before > 0;
  return reads_ring ? std::max(kCopiedTokens, config.window + 1) : kBlockTokens;
}

// A block's keys and values and those of its context: where the caller has them all, else copies.
class BlockRows {
 public:
  BlockRows(const StepProblem& problem, const RAttentionCache& cache, const Block& block) {
    context_ = block.context(cache.config().window);
    const std::int64_t rows = context_ + block.tokens;
    if (context_ <= block.first) {
      key = tokens_of(problem.key, block.sequence, block.first - context_, rows);
      value = tokens_of(problem.value, block.sequence, block.first - context_, rows);
      return;
    }
    key = reserve(problem.key, rows, &keys_);
    value = reserve(problem.value, rows, &values_);
    copy(problem, cache, block);
  }

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
    const Rotary rotary(cache.turns(), oldest, old);
    parallel_for(key.heads(), [&](std::int64_t head) {
      const CacheHead kept = cache.head(block.sequence * key.heads() + head);
      for (std::int64_t i = 0; i < rows; ++i) {
        float* k = keys_.get() + (head * rows + i) * key_width;
        float* v = values_.get() + (head * rows + i) * value_width;
        if (i < old) {
          cache.load_token(kept, oldest + i, rotary, k, v);
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

// States of one or all sequences as the linear family takes them, [..., kv_heads, 2 head_dim, value_dim].
struct States {
  float* sums;
  float* excesses;
};

// RAttention of the block's rows, to go on from a state.
RAttentionProblem block_problem(const StepProblem& problem, const CacheConfig& config, const Block& block,
                                const BlockRows& rows, const States& states) {
  // Row i reads keys of the context from the first to the (i - delay)-th.
  const std::int64_t delay = std::max(block.ahead, config.window + 1 - block.position);
  RAttentionProblem part;
  part.linear.query = tokens_of(problem.query, block.sequence, block.first, block.tokens);
  part.linear.key = rows.key.rows(0, block.tokens);
  part.linear.value = rows.value.rows(0, block.tokens);
  part.linear.feature_map = config.feature_map;
  part.linear.window = std::min(delay - 1, block.tokens);
  part.linear.state_heads = config.kv_heads;
  if (block.position > config.window) {
    part.linear.initial_state = states.sums;
    part.linear.initial_excess = states.excesses;
  }
  part.local = Continuation{rows.key, rows.value, config.window};
  part.scale = problem.scale;
  part.rope = config.rope;
  part.norms = problem.norms;
  return part;
}

// The states go on to what the block's last row reads.
void run_block(const StepProblem& problem, const CacheConfig& config, const Block& block, const BlockRows& rows,
               const NormJoin& norms, const States& states, const OutputView& output) {
  const RAttentionProblem part = block_problem(problem, config, block, rows, states);
  const std::int64_t size = config.kv_heads * part.linear.user_state_size();
  std::vector<float> finals(static_cast<std::size_t>(2 * size));
  BranchWants want;
  want.final = {finals.data(), finals.data() + size};
  Branches(part).run(want, [&](const BranchRow& row) {
    norms.store(row.head, row.local, row.linear, output.row(block.sequence, row.head, block.first + row.row),
                output.dtype);
  });
  std::copy_n(want.final.states, size, states.sums);
  std::copy_n(want.final.excesses, size, states.excesses);
}

// The states of all sequences while the new tokens join them. All memory is reserved by the constructor.
class NewStates {
 public:
  NewStates(const StepProblem& problem, const RAttentionCache& cache)
      : problem_(problem),
        cache_(cache),
        config_(cache.config()),
        size_(2 * config_.head_dim * config_.value_dim),
        sums_(new float[static_cast<std::size_t>(cache.heads() * size_)]),
        excesses_(new float[static_cast<std::size_t>(cache.heads() * size_)]),
        row_(new float[static_cast<std::size_t>(3 * padded(config_.head_dim) + padded(config_.value_dim))]) {
    for (std::int64_t index = 0; index < cache.heads(); ++index) {
      const CacheHead kept = cache.head(index);
      store_state(kept.state, 2 * config_.head_dim, config_.value_dim, sums_.get() + index * size_);
      store_state(kept.excess, 2 * config_.head_dim, config_.value_dim, excesses_.get() + index * size_);
    }
  }

  States of(std::int64_t b) const {
    const std::int64_t at = b * config_.kv_heads * size_;
    return {sums_.get() + at, excesses_.get() + at};
  }

  // Back into the cache, and on to what the next row reads. The rings must be as they were.
  void store() const {
    for (std::int64_t index = 0; index < cache_.heads(); ++index) {
      const std::int64_t b = index / config_.kv_heads;
      if (problem_.count(b) == 0) continue;
      const CacheHead kept = cache_.head(index);
      load_state(sums_.get() + index * size_, 2 * config_.head_dim, config_.value_dim, kept.state);
      load_state(excesses_.get() + index * size_, 2 * config_.head_dim, config_.value_dim, kept.excess);
      add_next(kept, b, index % config_.kv_heads);
    }
  }

 private:
  void add_next(const CacheHead& kept, std::int64_t b, std::int64_t kv_head) const {
    const std::int64_t before = cache_.lengths()[static_cast<std::size_t>(b)];
    const std::int64_t next = before + problem_.count(b) - config_.window - 1;
    if (next < 0) return;
    const std::int64_t width = padded(config_.head_dim);
    float* key = row_.get();
    float* value = key + 3 * width;
    if (next < before) {
      cache_.load_slot(kept, next % config_.window, key, value);
      if (cache_.rotates()) {
        float* angles = key + width;  // there are no features yet
        cache_.angles(next, angles);
        cache_.turn_key_back(key, angles);
      }
    } else {
      load_row(problem_.key, b, kv_head, next - before, key, width);
      load_row(problem_.value, b, kv_head, next - before, value, padded(config_.value_dim));
    }
    cache_.fold(kept, key, value, key + width);
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
        floats_(2 * key_width_ + value_width_),
        tasks_(ceil_div(std::min(problem.key.length(), cache.config().window), kTokens)),
        memory_(new float[static_cast<std::size_t>(problem.key.batch() * tasks_ * floats_)]) {}

  void run() const {
    parallel_for(problem_.key.batch() * tasks_, [this](std::int64_t index) {
      write(index / tasks_, index % tasks_, memory_.get() + index * floats_);
    });
  }

 private:
  static constexpr std::int64_t kTokens = 64;

  void write(std::int64_t b, std::int64_t task, float* memory) const {
    const std::int64_t count = problem_.count(b);
    const std::int64_t kept = std::min(count, cache_.config().window);
    const std::int64_t before = cache_.lengths()[static_cast<std::size_t>(b)];
    const std::int64_t first = count - kept + task * kTokens;
    for (std::int64_t i = first; i < std::min(first + kTokens, count); ++i) write_token(b, i, before + i, memory);
  }

  void write_token(std::int64_t b, std::int64_t i, std::int64_t position, float* key) const {
    float* angles = key + key_width_;
    float* value = angles + key_width_;
    if (cache_.rotates()) cache_.angles(position, angles);
    for (std::int64_t head = 0; head < problem_.key.heads(); ++head) {
      load_row(problem_.key, b, head, i, key, key_width_);
      load_row(problem_.value, b, head, i, value, value_width_);
      if (cache_.rotates()) cache_.turn_key(key, angles);
      cache_.store_slot(cache_.head(b * problem_.key.heads() + head), position % cache_.config().window, key, value);
    }
  }

  const StepProblem& problem_;
  const RAttentionCache& cache_;
  const std::int64_t key_width_;
  const std::int64_t value_width_;
  const std::int64_t floats_;
  const std::int64_t tasks_;
  std::unique_ptr<float[]> memory_;
};

}  // namespace

void rattention_prefill(const StepProblem& problem, RAttentionCache& cache, const OutputView& output) {
  const CacheConfig& config = cache.config();
  const NormJoin norms(problem.norms, problem.query.heads(), config.value_dim);
  NewStates states(problem, cache);
  for (std::int64_t b = 0; b < config.batch; ++b) {
    const std::int64_t before = cache.lengths()[static_cast<std::size_t>(b)];
    for (std::int64_t first = 0, tokens = 0; first < problem.count(b); first += tokens) {
      tokens = std::min(most_tokens(config, first, before), problem.count(b) - first);
      const Block block{b, first, tokens, before + first, first == 0 ? 1 : 0};
      const BlockRows rows(problem, cache, block);
      run_block(problem, config, block, rows, norms, states.of(b), output);
    }
  }
  const RingWriter ring(problem, cache);
  // From here on nothing fails.
  const Interrupts none(nullptr);
  states.store();
  ring.run();
}

}  // namespace rattention
