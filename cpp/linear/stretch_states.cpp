#include "linear/stretch_states.h"

#include <algorithm>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "linear/update_decay.h"
#include "linear/update_sum.h"

namespace rattention {
namespace {

// Sum of the stretch's keys, by chunks in order as StateScan adds them.
template <typename Update>
void sum_stretch(const LinearProblem& problem, const Stretch& stretch, std::int64_t kv_head, float* sum) {
  Scratch& scratch = thread_scratch();
  scratch.reset(Update::floats(problem));
  Update update(problem, scratch);
  Update::start(problem, sum);
  for (std::int64_t index = std::max<std::int64_t>(0, stretch.first_chunk); index < stretch.last_chunk; ++index) {
    update.load(stretch.batch, kv_head, stretch.chunk(index).keys);
    update.add_to(sum);
  }
}

// Sums of stretches and the states they become. A stretch's sum lies where the state after it will: in the next
// stretch's place, or among the last ones at the end of a batch entry.
template <typename Update>
class StretchStates {
 public:
  StretchStates(const LinearProblem& problem, const ScanPlan& plan, float* states, const FinalStates& final)
      : problem_(problem), plan_(plan), states_(states), final_(final), size_(problem.state_size()) {
    if (final.wanted()) last_.reset(new float[static_cast<std::size_t>(plan.batch_heads() * size_)]);
  }

  void sum_piece(std::int64_t piece) const {
    const std::int64_t heads = problem_.key.heads();
    const std::int64_t section = piece / heads;
    for (std::int64_t s = plan_.section_begin(section); s < plan_.section_begin(section + 1); ++s) {
      if (float* sum = after(s, piece % heads)) sum_stretch<Update>(problem_, plan_.stretch(s), piece % heads, sum);
    }
  }

  void join_head(std::int64_t batch, std::int64_t kv_head) const {
    std::vector<float> memory(static_cast<std::size_t>(2 * size_));
    float* running = memory.data();
    float* excess = running + size_;
    for (std::int64_t s = plan_.begin(batch); s < plan_.begin(batch + 1); ++s) {
      stop_if_asked();
      const Stretch& stretch = plan_.stretch(s);
      if (stretch.begins) load_initial(problem_, stretch, kv_head, running, excess);
      if (float* sum = after(s, kv_head)) {
        Update::fold(problem_, sum, running, excess);
        std::copy_n(running, size_, sum);
      }
      if (stretch.ends) final_.store(problem_, stretch, kv_head, running, excess);
    }
  }

 private:
  // Where the state after a stretch with keys goes, nullptr where nobody reads it.
  float* after(std::int64_t s, std::int64_t kv_head) const {
    const Stretch& stretch = plan_.stretch(s);
    if (!stretch.has_keys()) return nullptr;
    if (!stretch.closes) return states_ + plan_.saved_state(plan_.stretch(s + 1), kv_head) * size_;
    if (!stretch.ends || last_ == nullptr) return nullptr;
    return last_.get() + (stretch.batch * problem_.key.heads() + kv_head) * size_;
  }

  const LinearProblem& problem_;
  const ScanPlan& plan_;
  float* states_;
  const FinalStates& final_;
  const std::int64_t size_;
  std::unique_ptr<float[]> last_;
};

}  // namespace

template <typename Update>
void stretch_states(const LinearProblem& problem, const ScanPlan& plan, float* states, const FinalStates& final) {
  const std::int64_t heads = problem.key.heads();
  const StretchStates<Update> work(problem, plan, states, final);
  parallel_for(plan.pieces(), [&work](std::int64_t piece) { work.sum_piece(piece); });
  parallel_for(plan.batch_heads(),
               [&work, heads](std::int64_t index) { work.join_head(index / heads, index % heads); });
}

template void stretch_states<SumUpdate>(const LinearProblem&, const ScanPlan&, float*, const FinalStates&);
template void stretch_states<DecayUpdate>(const LinearProblem&, const ScanPlan&, float*, const FinalStates&);

std::unique_ptr<float[]> new_states(const LinearProblem& problem, const ScanPlan& plan) {
  return std::unique_ptr<float[]>(new float[static_cast<std::size_t>(plan.saved_states() * problem.state_size())]);
}

}  // namespace rattention
