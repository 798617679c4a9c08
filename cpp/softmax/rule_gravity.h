// Gravitational scores, G m_i m_j / (|q_i - k_j|^exponent + eps).
#pragma once

#include "core/tensor.h"
#include "softmax/score_rule.h"

namespace rattention {

struct Gravity {
  TensorView query_mass;            // [batch, heads, query_length, 1]
  TensorView key_mass;              // [batch, heads or kv_heads, key_length, 1]
  const float* strength = nullptr;  // G, one per query head
  float eps = 0.0F;
  const float* exponent = nullptr;  // > 0, one per query head; all are 2 where there is none

  // The head of key_mass that query head `head` reads.
  std::int64_t mass_head(std::int64_t head, std::int64_t query_heads) const {
    return head / (query_heads / key_mass.heads());
  }
};

class GravityRule : public ScoreRule {
 public:
  // Of parameters(); the exponent is the last, where there is one.
  enum Parameter : std::uint8_t { kQueryMass, kKeyMass, kStrength, kExponent };

  // std::invalid_argument where the masses do not fit the problem: query masses [B, H, Lq, 1] and key masses
  // [B, H or Hkv, Lk, 1].
  GravityRule(const Gravity& gravity, const ScoreProblem& problem);

  const Gravity& gravity() const { return gravity_; }
  PairProduct product() const override { return PairProduct::squared_distance; }
  bool changes_products() const override { return true; }
  std::vector<RuleParameter> parameters(const ScoreProblem& problem) const override;
  std::int64_t floats(const ScoreProblem& problem, std::int64_t rows, bool backward) const override;
  std::unique_ptr<RuleTile> tile(const ScoreProblem& problem, std::int64_t rows, const RuleGradients* gradients,
                                 Scratch& scratch) const override;

 private:
  const Gravity gravity_;
};

}  // namespace rattention
