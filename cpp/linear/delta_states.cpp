#include "linear/delta_states.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows.h"
#include "linear/feature_map.h"
#include "linear/scan_plan.h"

namespace rattention {
namespace {

// Added to squared lengths, as Transformers and flash-linear-attention do.
constexpr float kNormEps = 1e-6F;

std::int64_t saved_columns(const DeltaProblem& problem) { return kept_columns(problem.value.dim()); }

}  // namespace

std::vector<DeltaSequence> delta_sequences(const DeltaProblem& problem, std::int64_t batch) {
  const std::int64_t length = problem.query.length();
  std::vector<DeltaSequence> sequences;
  std::int64_t first = 0;
  do {
    const std::int64_t last = segment_end(problem.segments, length, batch, first);
    std::int64_t seeing = first;
    const bool initial = first == 0 && problem.initial_state != nullptr;
    while (!initial && seeing < last && problem.hidden(batch, seeing)) ++seeing;
    sequences.push_back({{first, last}, seeing});
    first = last;
  } while (first < length);
  return sequences;
}

std::int64_t SavedStates::count(const DeltaProblem& problem) {
  return std::max<std::int64_t>(problem.query.length() - 1, 0) / kChunk;
}

std::int64_t SavedStates::floats(const DeltaProblem& problem) {
  return count(problem) * problem.key.dim() * saved_columns(problem);
}

SavedStates::SavedStates(const DeltaProblem& problem, float* states) : problem_(problem), states_(states) {}

float* SavedStates::at(std::int64_t token) const {
  return states_ + (token / kChunk - 1) * problem_.key.dim() * saved_columns(problem_);
}

void SavedStates::store(std::int64_t token, const float* state) const {
  float* saved = at(token);
  for (std::int64_t f = 0; f < problem_.key.dim(); ++f) {
    std::copy_n(state + f * problem_.columns(), problem_.columns(), saved + f * saved_columns(problem_));
  }
}

void SavedStates::load(std::int64_t token, float* state) const {
  const float* saved = at(token);
  for (std::int64_t f = 0; f < problem_.key.dim(); ++f) {
    std::copy_n(saved + f * saved_columns(problem_), problem_.columns(), state + f * problem_.columns());
  }
}

void load_initial(const DeltaProblem& problem, std::int64_t index, KeySpan sequence, float* state) {
  const bool given = problem.initial_state != nullptr && sequence.first == 0;
  const float* own = given ? problem.initial_state + problem.state_at(index) : nullptr;
  if (own == state) return;
  if (own == nullptr) {
    std::fill_n(state, problem.key.dim() * problem.columns(), 0.0F);
  } else {
    load_state(own, problem.key.dim(), problem.value.dim(), state);
  }
}

float load_delta_row(const DeltaProblem& problem, const TensorView& view, std::int64_t batch, std::int64_t head,
                     std::int64_t i, float scale, float* row) {
  const std::int64_t width = problem.width();
  load_row(view, batch, head, i, row, width);
  const float factor = problem.normalize ? 1.0F / std::sqrt(tile_kernels().dot(row, row, width) + kNormEps) : 1.0F;
  if (factor * scale != 1.0F) tile_kernels().scale(row, width, factor * scale);
  return factor;
}

}  // namespace rattention
