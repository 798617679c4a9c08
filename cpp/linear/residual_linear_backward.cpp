#include "linear/residual_linear_backward.h"

#include <algorithm>
#include <memory>

#include "core/threads.h"
#include "linear/backward_scan.h"
#include "linear/stretch_states.h"
#include "linear/update_decay.h"
#include "linear/update_sum.h"

namespace rattention {
namespace {

// Two more passes over the keys, rows and their feature maps, and a quarter more products.
constexpr double kSplitCost = 0.35;

template <typename Update>
BackwardScan<Update> make_scan(const LinearProblem& problem, const LinearSaved& saved,
                               const LinearGradients& gradients) {
  Scratch& scratch = thread_scratch();
  scratch.reset(BackwardScan<Update>::floats(problem, saved));
  return {problem, saved, gradients, scratch};
}

// Stretches of a head from the last to the first.
template <typename Update>
void backward_head(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                   const ScanPlan& plan, std::int64_t batch, std::int64_t kv_head) {
  BackwardScan<Update> scan = make_scan<Update>(problem, saved, gradients);
  for (std::int64_t s = plan.begin(batch + 1) - 1; s >= plan.begin(batch); --s) {
    stop_if_asked();
    const Stretch& stretch = plan.stretch(s);
    if (stretch.closes) scan.gradient().begin(stretch, kv_head, saved.grad_state);
    scan.run(stretch, kv_head, saved.states + plan.saved_state(stretch, kv_head) * problem.state_size());
    scan.gradient().close_stretch();
    if (stretch.begins) scan.store_initial(stretch, kv_head);
  }
}

// Turns sums of stretches into the gradients behind their first rows.
template <typename Update>
void sums_to_gradients(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                       const ScanPlan& plan, std::int64_t batch, std::int64_t kv_head, float* sums) {
  const std::int64_t size = state_copies(problem) * problem.state_size();
  BackwardScan<Update> scan = make_scan<Update>(problem, saved, gradients);
  for (std::int64_t s = plan.begin(batch + 1) - 1; s >= plan.begin(batch); --s) {
    const Stretch& stretch = plan.stretch(s);
    if (stretch.closes) scan.gradient().begin(stretch, kv_head, saved.grad_state);
    if (stretch.keeps()) scan.gradient().join(sums + plan.saved_state(stretch, kv_head) * size);
    if (stretch.begins) scan.store_initial(stretch, kv_head);
  }
}

template <typename Update>
void backward_piece(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                    const ScanPlan& plan, std::int64_t section, std::int64_t kv_head, const float* sums) {
  const std::int64_t size = state_copies(problem) * problem.state_size();
  BackwardScan<Update> scan = make_scan<Update>(problem, saved, gradients);
  for (std::int64_t s = plan.section_begin(section); s < plan.section_begin(section + 1); ++s) {
    const Stretch& stretch = plan.stretch(s);
    if (stretch.closes) {
      scan.gradient().begin(stretch, kv_head, saved.grad_state);
    } else if (stretch.has_keys()) {  // nothing else reads the gradient
      scan.gradient().go_to(sums + plan.saved_state(plan.stretch(s + 1), kv_head) * size);
    }
    scan.run(stretch, kv_head, saved.states + plan.saved_state(stretch, kv_head) * problem.state_size());
  }
}

template <typename Update>
void backward_pieces(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                     const ScanPlan& plan) {
  const std::int64_t heads = problem.key.heads();
  const std::int64_t size = state_copies(problem) * problem.state_size();
  const std::unique_ptr<float[]> sums(new float[static_cast<std::size_t>(plan.saved_states() * size)]);
  parallel_for(plan.pieces(), [&](std::int64_t piece) {
    const std::int64_t section = piece / heads;
    for (std::int64_t s = plan.section_begin(section); s < plan.section_begin(section + 1); ++s) {
      const Stretch& stretch = plan.stretch(s);
      if (!stretch.keeps()) continue;
      BackwardScan<Update> scan = make_scan<Update>(problem, saved, gradients);
      scan.sum(stretch, piece % heads);
      std::copy_n(scan.gradient().local(), size, sums.get() + plan.saved_state(stretch, piece % heads) * size);
    }
  });
  parallel_for(plan.batch_heads(), [&](std::int64_t index) {
    sums_to_gradients<Update>(problem, saved, gradients, plan, index / heads, index % heads, sums.get());
  });
  parallel_for(plan.pieces(), [&](std::int64_t piece) {
    backward_piece<Update>(problem, saved, gradients, plan, piece / heads, piece % heads, sums.get());
  });
}

template <typename Update>
void run_backward(const LinearProblem& problem, const ScanPlan& plan, const LinearSaved& saved,
                  const LinearGradients& gradients) {
  LinearSaved with_states = saved;
  std::unique_ptr<float[]> own;
  if (saved.states == nullptr) {
    own = new_states(problem, plan);
    stretch_states<Update>(problem, plan, own.get());
    with_states.states = own.get();
  }
  if (plan.split_heads(kSplitCost)) {
    backward_pieces<Update>(problem, with_states, gradients, plan);
    return;
  }
  const std::int64_t heads = problem.key.heads();
  parallel_for(plan.batch_heads(), [&](std::int64_t index) {
    backward_head<Update>(problem, with_states, gradients, plan, index / heads, index % heads);
  });
}

}  // namespace

void linear_backward(const LinearProblem& problem, const ScanPlan& plan, const LinearSaved& saved,
                     const LinearGradients& gradients) {
  const bool passes_through =
      problem.key.length() == 0 && saved.grad_state != nullptr && gradients.initial_state != nullptr;
  if (passes_through) {
    std::copy_n(saved.grad_state, problem.key.batch() * problem.state_heads * problem.user_state_size(),
                gradients.initial_state);
  }
  if (problem.log_gates != nullptr) {
    run_backward<DecayUpdate>(problem, plan, saved, gradients);
  } else {
    run_backward<SumUpdate>(problem, plan, saved, gradients);
  }
}

}  // namespace rattention
