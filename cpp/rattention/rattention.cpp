#include "rattention/rattention.h"

#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "rattention/branches.h"
#include "rattention/norm_weights.h"

namespace rattention {

void rattention_forward(const RAttentionProblem& problem, const LinearForward& want) {
  const LinearProblem& linear = problem.linear;
  if (linear.key.length() == 0) pass_states_on(linear, want);
  const NormWeights local_weights(problem.local_norm_weight, linear.query.heads(), linear.value.dim());
  const NormWeights linear_weights(problem.linear_norm_weight, linear.query.heads(), linear.value.dim());
  BranchWants wants;
  wants.states = want.states;
  wants.final = {want.final_state, want.final_excess};
  const Branches branches(problem);
  const std::int64_t dim = linear.value.dim();
  const bool in_place = want.output->dtype == DType::f32 && dim == padded(dim);
  branches.run(wants, [&](const BranchRow& row) {
    std::byte* wanted = want.output->row(row.batch, row.head, row.row);
    float* sum = in_place ? reinterpret_cast<float*>(wanted) : row.linear;
    row_kernels().add_rms_norms(row.local, local_weights.of(row.head), row.linear, linear_weights.of(row.head), dim,
                                problem.eps, sum);
    if (!in_place) store_row(sum, dim, wanted, want.output->dtype);
  });
}

}  // namespace rattention
