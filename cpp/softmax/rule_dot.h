// The scaled dot product, scale * q . k.
#pragma once

#include "softmax/score_rule.h"

namespace rattention {

class DotTile : public RuleTile {
 public:
  explicit DotTile(const ScoreProblem& problem) : problem_(problem) {}
  void finish_query(const RuleRow& row, const float* query, float* sum) override;

 private:
  const ScoreProblem& problem_;
};

class DotRule : public ScoreRule {
 public:
  PairProduct product() const override { return PairProduct::dot; }
  bool changes_products() const override { return false; }
  std::unique_ptr<RuleTile> tile(const ScoreProblem& problem, std::int64_t rows, const RuleGradients* gradients,
                                 Scratch& scratch) const override;
};

}  // namespace rattention
