#include <algorithm>
#include <memory>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/rows.h"
#include "linear/residual_linear_backward.h"
#include "linear/stretch_states.h"
#include "rattention/branches.h"
#include "rattention/norm_join.h"
#include "rattention/rattention.h"
#include "softmax/softmax_backward.h"

namespace rattention {
namespace {

// A contiguous float32 array in the shape of the output.
class Rows {
 public:
  explicit Rows(const LinearProblem& problem)
      : shape_{problem.query.batch(), problem.query.heads(), problem.query.length(), problem.value.dim()},
        data_(new float[static_cast<std::size_t>(shape_[0] * shape_[1] * shape_[2] * shape_[3])]) {}

  void store(const BranchRow& at, const float* row) {
    std::copy_n(row, shape_[3], data_.get() + ((at.batch * shape_[1] + at.head) * shape_[2] + at.row) * shape_[3]);
  }
  TensorView view() const { return view_of(data_.get(), shape_); }

 private:
  std::array<std::int64_t, 4> shape_;
  std::unique_ptr<float[]> data_;
};

// Gradients of one norm's weights, summed by sections and heads first: no two threads meet, and the order is
// fixed.
class WeightGradients {
 public:
  WeightGradients(const LinearProblem& problem, const ScanPlan& plan)
      : problem_(problem),
        sections_(plan.sections()),
        width_(problem.columns()),
        sums_(static_cast<std::size_t>(sections_ * problem.query.heads() * width_)) {}

  float* of(const BranchRow& row) { return sums_.data() + (row.section * problem_.query.heads() + row.head) * width_; }

  void store(float* gradient) const {
    const std::int64_t dim = problem_.value.dim();
    for (std::int64_t g = 0; g < sections_; ++g) {
      for (std::int64_t head = 0; head < problem_.query.heads(); ++head) {
        const float* sum = sums_.data() + (g * problem_.query.heads() + head) * width_;
        for (std::int64_t d = 0; d < dim; ++d) gradient[head * dim + d] += sum[d];
      }
    }
  }

 private:
  const LinearProblem& problem_;
  std::int64_t sections_;
  std::int64_t width_;
  std::vector<float> sums_;
};

// What the norms leave for the two branches to go on with.
struct BranchGradients {
  explicit BranchGradients(const RAttentionProblem& problem, const ScanPlan& plan)
      : local_output(problem.linear),
        local(problem.linear),
        linear(problem.linear),
        lse(new double[static_cast<std::size_t>(problem.linear.query.batch() * problem.linear.query.heads() *
                                                problem.linear.query.length())]),
        states(new_states(problem.linear, plan)),
        local_weight(problem.linear, plan),
        linear_weight(problem.linear, plan) {}

  Rows local_output;
  Rows local;
  Rows linear;
  std::unique_ptr<double[]> lse;
  std::unique_ptr<float[]> states;
  WeightGradients local_weight;
  WeightGradients linear_weight;
};

// Computes the branches again and takes the gradients through the norms.
void norms_backward(const RAttentionProblem& problem, const Branches& branches, const TensorView& grad_output,
                    BranchGradients& gradients) {
  const std::int64_t dim = problem.linear.value.dim();
  const NormJoin norms(problem.norms, problem.linear.query.heads(), dim);
  BranchWants wants;
  wants.lse = gradients.lse.get();
  wants.states = gradients.states.get();
  branches.run(wants, [&](const BranchRow& row) {
    Scratch& scratch = thread_scratch(ScratchUse::row);
    scratch.reset(padded(dim));
    float* grad = scratch.take(padded(dim));
    load_row(grad_output, row.batch, row.head, row.row, grad, padded(dim));
    gradients.local_output.store(row, row.local);
    norms.backward(row.head, grad, row.local, row.linear, gradients.local_weight.of(row),
                   gradients.linear_weight.of(row));
    gradients.local.store(row, row.local);
    gradients.linear.store(row, row.linear);
  });
}

}  // namespace

void rattention_backward(const RAttentionProblem& problem, const RAttentionSaved& saved,
                         const RAttentionGradients& gradients) {
  const Branches branches(problem);
  BranchGradients between(problem, branches.plan());
  norms_backward(problem, branches, saved.grad_output, between);
  between.local_weight.store(gradients.local_norm_weight);
  between.linear_weight.store(gradients.linear_norm_weight);
  LinearGradients of_inputs = gradients.linear;
  of_inputs.add = branches.has_local();
  if (branches.has_local()) {
    SoftmaxSaved local{problem.linear.value, between.local_output.view(), between.local.view()};
    local.lse = between.lse.get();
    SoftmaxGradients local_gradients;
    local_gradients.query = gradients.linear.query;
    local_gradients.key = gradients.linear.key;
    local_gradients.value = gradients.linear.value;
    softmax_backward(branches.score(), local, local_gradients);
  }
  linear_backward(problem.linear, branches.plan(), {between.linear.view(), saved.grad_state, between.states.get()},
                  of_inputs);
}

}  // namespace rattention
