#include "linear/residual_linear.h"

#include <algorithm>
#include <memory>

#include "core/threads.h"
#include "kernels/rows.h"
#include "linear/end_states.h"
#include "linear/state_scan.h"
#include "linear/stretch_states.h"
#include "linear/update_decay.h"
#include "linear/update_sum.h"

namespace rattention {
namespace {

// Summing the states of stretches beforehand repeats the keys' feature map and a quarter of the products.
constexpr double kSplitCost = 0.4;

void copy_or_clear(const LinearProblem& problem, const float* initial, float* final) {
  const std::int64_t size = problem.key.batch() * problem.final_heads() * problem.user_state_size();
  if (final == nullptr) return;
  if (initial != nullptr) {
    std::copy_n(initial, size, final);
  } else {
    std::fill_n(final, size, 0.0F);
  }
}

template <typename Update>
void scan_stretch(const LinearProblem& problem, const LinearForward& want, StateScan<Update>& scan,
                  const Stretch& stretch, std::int64_t kv_head) {
  scan.run(stretch, kv_head, [&](std::int64_t head, KeySpan rows, const float* output) {
    const std::int64_t columns = padded(problem.value.dim());
    for (std::int64_t i = 0; i < rows.size(); ++i) {
      store_row(output + i * columns, problem.value.dim(), want.output->row(stretch.batch, head, rows.first + i),
                want.output->dtype);
    }
  });
}

FinalStates final_states(const LinearForward& want) { return {want.final_state, want.final_excess}; }

template <typename Update>
StateScan<Update> make_scan(const LinearProblem& problem) {
  Scratch& scratch = thread_scratch();
  scratch.reset(StateScan<Update>::floats(problem));
  return {problem, scratch};
}

template <typename Update>
void scan_head(const LinearProblem& problem, const LinearForward& want, const ScanPlan& plan, std::int64_t batch,
               std::int64_t kv_head) {
  StateScan<Update> scan = make_scan<Update>(problem);
  for (std::int64_t s = plan.begin(batch); s < plan.begin(batch + 1); ++s) {
    stop_if_asked();
    const Stretch& stretch = plan.stretch(s);
    if (stretch.begins) scan.state().begin(stretch, kv_head);
    if (want.states != nullptr && stretch.resumes()) {
      std::copy_n(scan.state().base(), problem.state_size(),
                  want.states + plan.saved_state(stretch, kv_head) * problem.state_size());
    }
    scan_stretch(problem, want, scan, stretch, kv_head);
    if (stretch.ends) final_states(want).store(problem, stretch, kv_head, scan.state().base(), scan.state().excess());
  }
}

template <typename Update>
void scan_pieces(const LinearProblem& problem, const LinearForward& want, const ScanPlan& plan) {
  std::unique_ptr<float[]> own;
  float* states = want.states;
  if (states == nullptr) {
    own = new_states(problem, plan);
    states = own.get();
  }
  stretch_states<Update>(problem, plan, states, final_states(want));
  const std::int64_t heads = problem.key.heads();
  parallel_for(plan.pieces(), [&](std::int64_t piece) {
    StateScan<Update> scan = make_scan<Update>(problem);
    const std::int64_t section = piece / heads;
    for (std::int64_t s = plan.section_begin(section); s < plan.section_begin(section + 1); ++s) {
      const Stretch& stretch = plan.stretch(s);
      const std::int64_t saved = plan.saved_state(stretch, piece % heads);
      scan.state().go_to(stretch, piece % heads, states + saved * problem.state_size());
      scan_stretch(problem, want, scan, stretch, piece % heads);
    }
  });
}

template <typename Update>
void run_forward(const LinearProblem& problem, const ScanPlan& plan, const LinearForward& want) {
  if (plan.split_heads(kSplitCost)) {
    scan_pieces<Update>(problem, want, plan);
    return;
  }
  const std::int64_t heads = problem.key.heads();
  parallel_for(plan.batch_heads(),
               [&](std::int64_t index) { scan_head<Update>(problem, want, plan, index / heads, index % heads); });
}

}  // namespace

void pass_states_on(const LinearProblem& problem, const LinearForward& want) {
  copy_or_clear(problem, problem.initial_state, want.final_state);
  copy_or_clear(problem, problem.initial_excess, want.final_excess);
}

void linear_forward(const LinearProblem& problem, const ScanPlan& plan, const LinearForward& want) {
  if (problem.key.length() == 0) pass_states_on(problem, want);
  if (problem.log_gates != nullptr) {
    run_forward<DecayUpdate>(problem, plan, want);
  } else {
    run_forward<SumUpdate>(problem, plan, want);
  }
}

}  // namespace rattention
