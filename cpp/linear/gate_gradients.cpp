#include "linear/gate_gradients.h"

#include <algorithm>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

namespace rattention {
std::int64_t GateGradients::floats(const LinearProblem& problem) {
  return stretch_chunks(problem.group()) * Scratch::round_up(problem.state_size()) + Scratch::round_up(kChunk * kChunk);
}

GateGradients::GateGradients(const LinearProblem& problem, float* gradient, Scratch& scratch)
    : problem_(problem),
      gradient_(gradient),
      reads_(static_cast<std::size_t>(stretch_chunks(problem.group()))),
      blank_(reads_.size()),
      states_(scratch.take(stretch_chunks(problem.group()) * Scratch::round_up(problem.state_size()))),
      turned_(scratch.take(kChunk * kChunk)) {}

void GateGradients::begin_chunk(std::int64_t slot, const RunningState<DecayUpdate>& state) {
  const auto index = static_cast<std::size_t>(slot);
  reads_[index].fill(0.0F);
  blank_[index] = state.shared() == nullptr;
  if (blank_[index]) {
    set_left(problem_, 1.0, state_of(slot));
  } else {
    std::copy_n(state.shared(), problem_.state_size(), state_of(slot));
  }
}

void GateGradients::add_reads(std::int64_t slot, const float* phi, const float* grad_phi, std::int64_t n) {
  float* reads = reads_[static_cast<std::size_t>(slot)].data();
  row_kernels().dot_columns(phi, grad_phi, padded(n), problem_.features(), kChunk, reads);
}

void GateGradients::begin_keys(std::int64_t slot) {
  const Numbers& reads = reads_[static_cast<std::size_t>(slot)];
  float sum = 0.0F;
  for (std::size_t t = sums_.size(); t-- > 0;) sums_[t] = sum += reads[t];
}

void GateGradients::add_left(const float* phi, const float* grad_phi, std::int64_t n) {
  Numbers left{};
  row_kernels().dot_columns(phi, grad_phi, padded(n), problem_.features(), kChunk, left.data());
  float sum = 0.0F;
  for (std::size_t t = 1; t < sums_.size(); ++t) sums_[t] += sum += left[t - 1];
}

void GateGradients::add_pairs(const float* lower, const float* upper, std::int64_t n) {
  row_kernels().transpose(upper, kChunk, padded(n), padded(n), turned_, kChunk);
  Numbers later{};  // of key j, with rows t and after
  for (std::int64_t t = n - 1; t > 0; --t) {
    const float* a = lower + t * kChunk;
    const float* b = turned_ + t * kChunk;
    for (std::int64_t j = 0; j < t; ++j) later[static_cast<std::size_t>(j)] += a[j] * b[j];
    sums_[static_cast<std::size_t>(t)] += tile_kernels().sum(later.data(), t);
  }
}

void GateGradients::add_passed(const Stretch& stretch, std::int64_t slot, std::int64_t kv_head, double whole,
                               const RunningState<DecayUpdate>& state, RunningGradient<DecayUpdate>& gradient) {
  if (whole == 0.0) return;
  const std::int64_t size = problem_.state_floats();
  double passed = 0.0;
  if (!blank_[static_cast<std::size_t>(slot)]) {
    passed += static_cast<double>(tile_kernels().dot(state_of(slot), gradient.total(), size));
  }
  for (std::int64_t c = 0; c < state_copies(problem_); ++c) {
    const float* own = state.own(stretch, kv_head * problem_.group() + c);
    if (own == nullptr) continue;
    passed +=
        left_of(problem_, state_of(slot)) * static_cast<double>(tile_kernels().dot(own, gradient.read_copy(c), size));
  }
  for (float& sum : sums_) sum += static_cast<float>(whole * passed);
}

void GateGradients::store(std::int64_t batch, std::int64_t kv_head, KeySpan keys) const {
  float* gradients = gradient_ + (batch * problem_.key.heads() + kv_head) * problem_.key.length() + keys.first;
  for (std::int64_t t = 0; t < keys.size(); ++t) {
    if (!problem_.hidden(batch, keys.first + t)) gradients[t] = sums_[static_cast<std::size_t>(t)];
  }
}

}  // namespace rattention
