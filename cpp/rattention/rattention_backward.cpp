#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/rows.h"
#include "linear/residual_linear_backward.h"
#include "rattention/branches.h"
#include "rattention/norm_join.h"
#include "rattention/rattention.h"
#include "softmax/softmax_backward.h"

namespace rattention {
namespace {

// Of a head, that go through the norms as a task. Fixed, because gradients of their weights are summed by tasks.
constexpr std::int64_t kNormRows = 384;

std::unique_ptr<float[]> new_floats(std::int64_t n) {
  return std::unique_ptr<float[]>(new float[static_cast<std::size_t>(n)]);
}

// Gradients of the rows of both branches, and of the weights of their norms.
class NormGradients {
 public:
  explicit NormGradients(const RAttentionProblem& problem)
      : problem_(problem),
        heads_(problem.linear.query.heads()),
        parts_(ceil_div(problem.linear.query.length(), kNormRows)),
        dim_(problem.linear.value.dim()),
        width_(padded(dim_)),
        shape_{problem.linear.query.batch(), heads_, problem.linear.query.length(), dim_},
        local_(new_floats(shape_[0] * shape_[1] * shape_[2] * dim_)),
        linear_(new_floats(shape_[0] * shape_[1] * shape_[2] * dim_)),
        sums_(static_cast<std::size_t>(tasks() * 2 * width_)) {}

  void run(const TensorView& grad_output, const RAttentionKept& kept) {
    const NormJoin norms(problem_.norms, heads_, dim_);
    parallel_for(tasks(), [&](std::int64_t task) { run_task(norms, grad_output, kept, task); });
  }

  TensorView local() const { return view_of(local_.get(), shape_); }
  TensorView linear() const { return view_of(linear_.get(), shape_); }
  void add_weights(const RAttentionGradients& gradients) const {
    for (std::int64_t task = 0; task < tasks(); ++task) {
      const std::int64_t head = task / parts_ % heads_;
      const float* sum = sums_.data() + task * 2 * width_;
      for (std::int64_t d = 0; d < dim_; ++d) {
        gradients.local_norm_weight[head * dim_ + d] += sum[d];
        gradients.linear_norm_weight[head * dim_ + d] += sum[width_ + d];
      }
    }
  }

 private:
  std::int64_t tasks() const { return shape_[0] * heads_ * parts_; }

  void run_task(const NormJoin& norms, const TensorView& grad_output, const RAttentionKept& kept, std::int64_t task) {
    stop_if_asked();
    Scratch& scratch = thread_scratch(ScratchUse::row);
    scratch.reset(3 * Scratch::round_up(width_));
    float* grad = scratch.take(width_);
    float* local = scratch.take(width_);
    float* linear = scratch.take(width_);
    const std::int64_t head = task / parts_;  // counted over the batch
    float* sum = sums_.data() + task * 2 * width_;
    const std::int64_t last = std::min(shape_[2], (task % parts_ + 1) * kNormRows);
    for (std::int64_t row = task % parts_ * kNormRows; row < last; ++row) {
      const std::int64_t at = (head * shape_[2] + row) * dim_;
      load_row(grad_output, head / heads_, head % heads_, row, grad, width_);
      std::fill(std::copy_n(kept.local + at, dim_, local), local + width_, 0.0F);
      std::fill(std::copy_n(kept.linear + at, dim_, linear), linear + width_, 0.0F);
      norms.backward(head % heads_, grad, local, linear, sum, sum + width_);
      std::copy_n(local, dim_, local_.get() + at);
      std::copy_n(linear, dim_, linear_.get() + at);
    }
  }

  const RAttentionProblem& problem_;
  const std::int64_t heads_;
  const std::int64_t parts_;
  const std::int64_t dim_;
  const std::int64_t width_;
  const std::array<std::int64_t, 4> shape_;
  const std::unique_ptr<float[]> local_;
  const std::unique_ptr<float[]> linear_;
  std::vector<float> sums_;  // [tasks][local, linear][width]
};

void local_backward(const RAttentionProblem& problem, const ScoreProblem& score, const TensorView& grad_output,
                    const RAttentionKept& kept, const LinearGradients& gradients) {
  SoftmaxSaved saved{problem.linear.value, view_of(kept.local, grad_output.shape), grad_output};
  saved.lse = kept.lse;
  SoftmaxGradients wanted;
  wanted.query = gradients.query;
  wanted.key = gradients.key;
  wanted.value = gradients.value;
  softmax_backward(score, saved, wanted);
}

}  // namespace

void rattention_backward(const RAttentionProblem& problem, const RAttentionSaved& saved,
                         const RAttentionGradients& gradients) {
  const Branches branches(problem);
  std::unique_ptr<float[]> memory;
  std::optional<RAttentionKept> own;
  if (saved.kept == nullptr) {
    memory = new_floats(RAttentionKept::floats(problem));
    own.emplace(problem, memory.get());
    BranchWants wants;
    wants.kept = &*own;
    branches.run(wants, [](const BranchRow&) {});
  }
  const RAttentionKept& kept = own ? *own : *saved.kept;
  NormGradients norms(problem);
  norms.run(saved.grad_output, kept);
  norms.add_weights(gradients);
  LinearGradients of_inputs = gradients.linear;
  of_inputs.add = branches.has_local();
  if (branches.has_local()) local_backward(problem, branches.score(), norms.local(), kept, gradients.linear);
  linear_backward(problem.linear, branches.plan(), {norms.linear(), saved.grad_state, kept.states}, of_inputs);
}

}  // namespace rattention
