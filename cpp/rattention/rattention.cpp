#include "rattention/rattention.h"

#include "rattention/branches.h"
#include "rattention/norm_join.h"

namespace rattention {

void rattention_forward(const RAttentionProblem& problem, const LinearForward& want, const RAttentionKept* kept) {
  const LinearProblem& linear = problem.linear;
  if (linear.key.length() == 0) pass_states_on(linear, want);
  const NormJoin norms(problem.norms, linear.query.heads(), linear.value.dim());
  BranchWants wants;
  wants.final = {want.final_state, want.final_excess};
  wants.kept = kept;
  const Branches branches(problem);
  branches.run(wants, [&](const BranchRow& row) {
    norms.store(row.head, row.local, row.linear, want.output->row(row.batch, row.head, row.row), want.output->dtype);
  });
}

}  // namespace rattention
