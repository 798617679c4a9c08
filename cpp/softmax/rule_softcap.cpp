#include "softmax/rule_softcap.h"

#include <algorithm>

#include "kernels/tile_kernels.h"
#include "softmax/score_problem.h"

namespace rattention {
namespace {

class SoftcapTile : public DotTile {
 public:
  SoftcapTile(const ScoreProblem& problem, float cap, float* slopes) : DotTile(problem), cap_(cap), slopes_(slopes) {}

  void load_keys(std::int64_t /*batch*/, std::int64_t /*head*/, KeySpan keys) override { keys_ = keys; }

  void to_scores(const RuleRow& row, KeySpan keys, float* products) override {
    tile_kernels().softcap(products, keys.size(), cap_, slopes_ != nullptr ? slopes_of(row, keys) : nullptr);
  }

  // A gradient of 0 stays 0, whatever the slope.
  void to_factors(const RuleRow& row, KeySpan keys, float* gradients) override {
    float* slopes = slopes_of(row, keys);
    tile_kernels().score_gradient(slopes, gradients, keys.size(), 0);
    std::copy_n(slopes, keys.size(), gradients);
  }

 private:
  float* slopes_of(const RuleRow& row, KeySpan keys) const {
    return slopes_ + row.r * kTileStride + (keys.first - keys_.first);
  }

  float cap_;
  float* slopes_;  // of the backward pass, d score / d product: [kBlockRows][kTileStride]
  KeySpan keys_;
};

}  // namespace

std::int64_t SoftcapRule::floats(const ScoreProblem& /*problem*/, std::int64_t /*rows*/, bool backward) const {
  return backward ? Scratch::round_up(kBlockRows * kTileStride) : 0;
}

std::unique_ptr<RuleTile> SoftcapRule::tile(const ScoreProblem& problem, std::int64_t /*rows*/,
                                            const RuleGradients* gradients, Scratch& scratch) const {
  float* slopes = gradients != nullptr ? scratch.take(kBlockRows * kTileStride) : nullptr;
  return std::make_unique<SoftcapTile>(problem, cap_, slopes);
}

}  // namespace rattention
