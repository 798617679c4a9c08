// Attention received per key: mean weight over the rows that may see it.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "softmax/row_observer.h"
#include "softmax/task_plan.h"

namespace rattention {

// received[b, h, j] = mean over the query rows that may see key j of their weight on it; 0 where no row may. Contiguous
// [batch, heads, key_length]; lse is natural, [batch, heads, row_count]. A second sweep, over columns, once the
// softmax's denominators are known.
void attention_received(const ScoreProblem& problem, const double* lse, float* received);

// The same in passing, where one tile holds all keys: a row of weights then comes with its denominator. Rows are summed
// block by block and blocks in order, whoever computes them.
class ReceivedInPassing {
 public:
  static bool possible(const ScoreProblem& problem) {
    return problem.masks.key_length <= kTileKeys && problem.sinks == nullptr;
  }
  explicit ReceivedInPassing(const ScoreProblem& problem);

  // The row's number counts over [batch, heads, row_count]. Threads may add rows of different blocks at a time.
  void add(std::int64_t row, const RowWeights& weights);
  void store(float* received) const;

 private:
  void add_nan_rows(std::int64_t head, float* sum) const;
  const float* block_sums(std::int64_t head, std::int64_t block) const {
    return sums_.data() + (head * blocks_ + block) * stride_;
  }

  const ScoreProblem& problem_;
  std::int64_t blocks_;  // per head
  std::int64_t stride_;
  std::vector<float> sums_;  // [batch * heads, blocks, stride]
  std::mutex mutex_;
  std::vector<std::int64_t> nan_rows_;  // weights do not tell which of their keys are hidden
};

}  // namespace rattention
