// Segments, largest weights and mass by distance against the whole map in float64, and the kernel that finds weights.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "core/threads.h"
#include "kernels/tile_kernels.h"
#include "metrics/distance_mass.h"
#include "metrics/pooled_map.h"
#include "metrics/top_keys.h"

namespace {

using namespace rattention::test;
using rattention::Bins;
using rattention::Masks;

const Shape kShape{1, 2, 1, 300, 1100, 8, 8};

Matrix weights_of(const rattention::ScoreProblem& problem, const Inputs& inputs, std::int64_t head) {
  return softmax_of_rows(reference_scores(problem, inputs, 0, head));
}

void segments() {
  const Inputs inputs(kShape);
  const rattention::ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 0));
  const Bins rows(std::vector<std::int64_t>{0, 1, 48, 49, 300});
  const Bins keys(std::vector<std::int64_t>{3, 700, 1023, 1024, 1025});
  std::vector<float> mass(static_cast<std::size_t>(2 * rows.count() * keys.count()));
  rattention::segment_mass(problem, rows, keys, nullptr, mass.data());
  for (std::int64_t h = 0, i = 0; h < 2; ++h) {
    const Matrix weights = weights_of(problem, inputs, h);
    for (std::int64_t r = 0; r < rows.count(); ++r) {
      for (std::int64_t c = 0; c < keys.count(); ++c, ++i) {
        const double want = weights.block(rows.first(r), keys.first(c), rows.bin(r).size(), keys.bin(c).size()).sum();
        CHECK_CLOSE(mass[static_cast<std::size_t>(i)], want, 3e-6 * want + 1e-12);
      }
    }
  }
}

void distances() {
  const Inputs inputs(kShape);
  const rattention::ScoreProblem problem = problem_of(inputs, reach(600, 20));
  const Bins bins(std::vector<std::int64_t>{0, 1, 5, 64, 601, 5000});
  std::vector<float> mass(static_cast<std::size_t>(2 * bins.count()));
  rattention::distance_mass(problem, bins, nullptr, mass.data());
  for (std::int64_t h = 0; h < 2; ++h) {
    const Matrix weights = weights_of(problem, inputs, h);
    std::vector<double> want(static_cast<std::size_t>(bins.count()));
    for (Eigen::Index r = 0; r < weights.rows(); ++r)
      for (Eigen::Index c = 0; c < weights.cols(); ++c) {
        want[static_cast<std::size_t>(bins.of(std::abs(r + 800 - c)))] += weights(r, c) / 300;
      }
    for (std::size_t b = 0; b < want.size(); ++b) {
      CHECK_CLOSE(mass[static_cast<std::size_t>(h * bins.count()) + b], want[b], 3e-6 * want[b]);
    }
  }
}

void largest_weights() {
  const Inputs inputs(kShape);
  const rattention::ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, Masks::kUnlimited));
  constexpr std::int64_t kCount = 19;
  std::vector<std::int64_t> keys(2 * 300 * kCount);
  std::vector<float> top(keys.size());
  rattention::top_keys(problem, nullptr, {kCount, keys.data(), top.data()});
  for (std::int64_t h = 0; h < 2; ++h) {
    const Matrix weights = weights_of(problem, inputs, h);
    for (Eigen::Index r = 0; r < weights.rows(); ++r) {
      std::vector<double> row(weights.row(r).begin(), weights.row(r).end());
      std::sort(row.begin(), row.end(), std::greater<>());
      for (std::int64_t i = 0; i < kCount; ++i) {
        const auto at = static_cast<std::size_t>((h * 300 + r) * kCount + i);
        const double want = row[static_cast<std::size_t>(i)];
        CHECK_CLOSE(top[at], want, 3e-6 * want);
        CHECK_CLOSE(weights(r, keys[at]), want, 3e-6 * want);
      }
    }
  }
}

// One number above the bound, at every place of rows of every length.
void find_above() {
  const auto find = rattention::tile_kernels().find_above;
  for (std::int64_t n = 0; n <= 70; ++n) {
    std::vector<float> x(static_cast<std::size_t>(n), 0.5F);
    CHECK(find(x.data(), n, 0.5F) == n);
    for (std::int64_t at = 0; at < n; ++at) {
      for (const float above : {0.6F, std::numeric_limits<float>::quiet_NaN()}) {
        x[static_cast<std::size_t>(at)] = above;
        CHECK(find(x.data(), n, 0.5F) == at);
      }
      x[static_cast<std::size_t>(at)] = 0.4F;
    }
  }
}

}  // namespace

int main() {
  return rattention::test::run({
      {"segments", segments},
      {"distances", distances},
      {"largest weights", largest_weights},
      {"the first number above a bound", find_above},
  });
}
