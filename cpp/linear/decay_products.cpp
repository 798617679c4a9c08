#include "linear/decay_products.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/row_kernels.h"
#include "kernels/tile_kernels.h"

namespace rattention {
namespace {

constexpr double kSmallestFloat = std::numeric_limits<float>::min();

// Denormal numbers would cost more time than they are worth.
float as_factor(double product) { return product < kSmallestFloat ? 0.0F : static_cast<float>(product); }

double gate_of(float log) {
  constexpr double kSmallestLog = -700.0;
  if (log == -std::numeric_limits<float>::infinity()) return 0.0;
  return std::exp(std::max(kSmallestLog, static_cast<double>(log)));
}

}  // namespace

double product_left(double a, double b) {
  const bool forgets = a == 0.0 || b == 0.0;
  return forgets ? 0.0 : std::max(a * b, std::numeric_limits<double>::min());
}

double left_of(const LinearProblem& problem, const float* state) {
  double left = 1.0;
  if (problem.log_gates != nullptr) std::memcpy(&left, state + problem.state_floats(), sizeof left);
  return left;
}

void set_left(const LinearProblem& problem, double left, float* state) {
  if (problem.log_gates != nullptr) std::memcpy(state + problem.state_floats(), &left, sizeof left);
}

double usable_factor(const LinearProblem& problem, double factor, const float* state) {
  if (factor == 0.0 || factor >= kSmallestFloat) return factor;
  return tile_kernels().all_finite(state, problem.state_floats()) ? 0.0 : kSmallestFloat;
}

void decay_state(const LinearProblem& problem, double factor, float* state) {
  const double left = product_left(left_of(problem, state), factor);
  const double usable = usable_factor(problem, factor, state);
  if (usable == 0.0) {
    std::fill_n(state, problem.state_floats(), 0.0F);
  } else if (usable != 1.0) {
    tile_kernels().scale(state, problem.state_floats(), static_cast<float>(usable));
  }
  set_left(problem, left, state);
}

DecayProducts::DecayProducts(const LinearProblem& problem, Scratch& scratch)
    : problem_(problem), pairs_(scratch.take(kChunk * kChunk)), turned_(scratch.take(kChunk * kChunk)) {}

std::int64_t DecayProducts::floats() { return 2 * Scratch::round_up(kChunk * kChunk); }

void DecayProducts::load(std::int64_t batch, std::int64_t kv_head, KeySpan keys) {
  size_ = keys.size();
  const float* logs =
      problem_.log_gates + (batch * problem_.key.heads() + kv_head) * problem_.key.length() + keys.first;
  for (std::int64_t i = 0; i < size_; ++i) {
    const bool hidden = problem_.hidden(batch, keys.first + i);
    gates_[static_cast<std::size_t>(i)] = hidden ? 1.0 : gate_of(logs[i]);
  }
  multiply_up();
  has_pairs_ = has_turned_ = false;
}

void DecayProducts::multiply_up() {
  whole_ = 1.0;
  reading_ = kChunk;
  joining_ = 0;
  of_rows_.fill(problem_.scale);
  for (std::int64_t i = 0; i < size_; ++i) {
    if (gate(i) == 0.0) {
      reading_ = std::min(reading_, i);
      joining_ = i;
    }
    whole_ = product_left(whole_, gate(i));
    of_rows_[static_cast<std::size_t>(i)] = problem_.scale * as_factor(whole_);
  }
  of_keys_.fill(0.0F);
  double left = 1.0;
  for (std::int64_t j = size_ - 1; j >= 0; --j) {
    of_keys_[static_cast<std::size_t>(j)] = as_factor(left);
    left *= gate(j);
  }
}

const float* DecayProducts::of_pairs() const {
  if (has_pairs_) return pairs_;
  std::array<double, kChunk> row;
  row_kernels().running_products(gates_.data(), size_, problem_.scale, row.data(), pairs_, kChunk);
  has_pairs_ = true;
  return pairs_;
}

const float* DecayProducts::of_pairs_turned() const {
  if (has_turned_) return turned_;
  row_kernels().transpose(of_pairs(), kChunk, padded(size_), padded(size_), turned_, kChunk);
  has_turned_ = true;
  return turned_;
}

}  // namespace rattention
