#include "softmax/rule_dot.h"

#include "kernels/tile_kernels.h"
#include "softmax/score_problem.h"

namespace rattention {

// The queries that the keys' gradients are summed of carry the scale already.
void DotTile::finish_query(const RuleRow& /*row*/, const float* /*query*/, float* sum) {
  tile_kernels().scale(sum, problem_.query.dim(), problem_.scale);
}

std::unique_ptr<RuleTile> DotRule::tile(const ScoreProblem& problem, std::int64_t /*rows*/,
                                        const RuleGradients* /*gradients*/, Scratch& /*scratch*/) const {
  return std::make_unique<DotTile>(problem);
}

}  // namespace rattention
