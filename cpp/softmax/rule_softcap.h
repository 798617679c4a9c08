// The scaled dot product, bounded: cap * tanh(scale * q . k / cap), as Gemma 2 has it (arXiv 2408.00118, section 2).
#pragma once

#include "softmax/rule_dot.h"

namespace rattention {

class SoftcapRule : public ScoreRule {
 public:
  explicit SoftcapRule(float cap) : cap_(cap) {}

  float cap() const { return cap_; }
  PairProduct product() const override { return PairProduct::dot; }
  bool changes_products() const override { return true; }
  std::int64_t floats(const ScoreProblem& problem, std::int64_t rows, bool backward) const override;
  std::unique_ptr<RuleTile> tile(const ScoreProblem& problem, std::int64_t rows, const RuleGradients* gradients,
                                 Scratch& scratch) const override;

 private:
  float cap_;
};

}  // namespace rattention
