// How the pair of a query and a key is scored. The score loop makes one of two products of every pair; a rule turns
// rows of them into scores and, in the backward pass, gradients of scores into those of the products and of its own
// parameters. Rules know nothing of masks, discounts, softmax and values.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/scratch.h"
#include "softmax/masks.h"

namespace rattention {

struct ScoreProblem;

enum class PairProduct : std::uint8_t {
  dot,              // scale * q . k
  squared_distance  // |q - k|^2, float32 operands alone
};

struct RuleRow {
  std::int64_t batch = 0;
  std::int64_t head = 0;
  std::int64_t query_row = 0;
  std::int64_t r = 0;     // within the block
  std::int64_t slot = 0;  // within the task
};

// A parameter of a rule that has a gradient.
struct RuleParameter {
  const char* name;
  std::vector<std::int64_t> shape;
};

// Where the gradients of parameters() go, in their order: contiguous and zero on entry. Those by query row are summed
// by the caller in row order.
using RuleGradients = std::vector<float*>;

// A rule at work on one tile after another. What it overrides is where it differs from a sum of plain products.
class RuleTile {
 public:
  RuleTile() = default;
  RuleTile(const RuleTile&) = delete;
  RuleTile& operator=(const RuleTile&) = delete;
  virtual ~RuleTile() = default;

  // The keys of the tile, before the rows of a block of `head`.
  virtual void load_keys(std::int64_t /*batch*/, std::int64_t /*head*/, KeySpan /*keys*/) {}
  // Products of a row with the keys it sees become scores. Called where the rule says that it changes products.
  virtual void to_scores(const RuleRow& /*row*/, KeySpan /*keys*/, float* /*products*/) {}

  // The backward pass of a tile, for all heads that read the key/value head: begin_keys() before its first block ...
  virtual void begin_keys(std::int64_t /*batch*/, std::int64_t /*kv_head*/, KeySpan /*keys*/) {}
  // ... dL/dscore becomes the factor w with which the row's query and those keys enter each other's gradients, 0 where
  // it was 0, whatever the score ...
  virtual void to_factors(const RuleRow& /*row*/, KeySpan /*keys*/, float* /*gradients*/) {}
  // ... sum w q over the tile's rows becomes the gradient of the key ...
  virtual void finish_key(std::int64_t /*key*/, const float* /*key_row*/, float* /*sum*/) {}
  // ... and what the keys' own parameters got is added to RuleGradients, by one task at a time for those keys.
  virtual void store_keys() {}
  // After all tiles: sum w k becomes the gradient of the query as it was before scale.
  virtual void finish_query(const RuleRow& /*row*/, const float* /*query*/, float* /*sum*/) {}
};

class ScoreRule {
 public:
  ScoreRule() = default;
  ScoreRule(const ScoreRule&) = delete;
  ScoreRule& operator=(const ScoreRule&) = delete;
  virtual ~ScoreRule() = default;

  virtual PairProduct product() const = 0;
  virtual bool changes_products() const = 0;
  virtual std::vector<RuleParameter> parameters(const ScoreProblem& /*problem*/) const { return {}; }

  // Working memory that tile() takes from the scratch, for tasks of so many rows.
  virtual std::int64_t floats(const ScoreProblem& /*problem*/, std::int64_t /*rows*/, bool /*backward*/) const {
    return 0;
  }
  // For the backward pass with `gradients`, else nullptr.
  virtual std::unique_ptr<RuleTile> tile(const ScoreProblem& problem, std::int64_t rows, const RuleGradients* gradients,
                                         Scratch& scratch) const = 0;
};

}  // namespace rattention
