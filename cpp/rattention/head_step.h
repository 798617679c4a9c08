// The new tokens of one key/value head of one sequence, one after the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/tensor.h"
#include "kernels/tile_kernels.h"
#include "rattention/norm_join.h"
#include "rattention/rattention_cache.h"
#include "rattention/step_problem.h"

namespace rattention {

// What all heads of a call read.
struct StepInputs {
  const float* angles = nullptr;  // [batch][tokens][head_dim], where the cache rotates
  const NormJoin* norms = nullptr;
};

// Nothing here can fail: the cache changes token by token.
class HeadStep {
 public:
  HeadStep(const StepProblem& problem, const RAttentionCache& cache, const OutputView& output, const StepInputs& inputs)
      : problem_(problem), cache_(cache), config_(cache.config()), output_(output), inputs_(inputs) {}

  // Lays out the working memory, or none for now; returns how many floats it takes.
  std::int64_t lay_out(float* memory);
  // `index` counts the key/value heads of the whole batch.
  void run(std::int64_t index);

 private:
  void token(std::int64_t i, std::int64_t position);
  void load(std::int64_t i);
  const float* angles_of(std::int64_t i) const;
  // The token itself, then the ring tile by tile.
  void attend(std::int64_t filled);
  void score(std::int64_t first, std::int64_t slots);
  // Online softmax: scores of the next n slots become weights relative to the highest score so far.
  void weigh(std::int64_t n);
  void add_values(std::int64_t first, std::int64_t slots);
  // n elements of the ring as float32.
  const float* wide(const std::byte* ring, DType dtype, std::int64_t at, std::int64_t n);
  void read_state(bool any);
  void store(std::int64_t i);
  // The token takes the place of the one w before it, which goes into the state.
  void remember(std::int64_t i, std::int64_t position);

  const StepProblem& problem_;
  const RAttentionCache& cache_;
  const CacheConfig& config_;
  const OutputView& output_;
  const StepInputs& inputs_;
  const TileKernels& kernels_ = tile_kernels();
  const std::int64_t group_ = config_.kv_heads == 0 ? 0 : problem_.query.heads() / config_.kv_heads;
  const std::int64_t columns_ = padded(config_.value_dim);
  CacheHead kept_{};
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
  float* turned_ = nullptr;
  float* value_ = nullptr;
  float* old_key_ = nullptr;
  float* old_value_ = nullptr;
  float* wide_ = nullptr;
};

}  // namespace rattention
