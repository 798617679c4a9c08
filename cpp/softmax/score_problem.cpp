#include "softmax/score_problem.h"

#include <cmath>

#include "kernels/rows.h"
#include "kernels/tile_kernels.h"
#include "softmax/checks.h"
#include "softmax/rule_dot.h"

namespace rattention {

ScoreProblem scaled_dot_product(const TensorView& query, const TensorView& key) {
  static const auto dot = std::make_shared<const DotRule>();
  check_query_and_key(query, key);
  ScoreProblem problem;
  problem.query = query;
  problem.key = key;
  problem.rule = dot;
  problem.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(query.dim())));
  problem.masks.key_length = key.length();
  problem.masks.query_offset = key.length() - query.length();
  problem.row_count = query.length();
  return problem;
}

void load_query(const ScoreProblem& problem, std::int64_t batch, std::int64_t head, std::int64_t row, float* floats,
                std::int64_t padded) {
  load_row(problem.query, batch, head, row, floats, padded);
  if (problem.rotary != nullptr) problem.rotary->apply(floats, problem.masks.position(row));
  if (problem.rule->product() == PairProduct::dot) tile_kernels().scale(floats, problem.query.dim(), problem.scale);
}

}  // namespace rattention
