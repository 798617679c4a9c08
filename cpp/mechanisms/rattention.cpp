#include "mechanisms/rattention.h"

#include "core/row_kernels.h"
#include "mechanisms/branches.h"
#include "mechanisms/norm_weights.h"

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
  branches.run(wants, [&](const BranchRow& row) {
    row_kernels().add_rms_norms(row.local, local_weights.of(row.head), row.linear, linear_weights.of(row.head),
                                linear.value.dim(), problem.eps, row.linear);
    store_row(row.linear, linear.value.dim(), want.output->row(row.batch, row.head, row.row), want.output->dtype);
  });
}

}  // namespace rattention
