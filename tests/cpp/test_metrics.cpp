// Row metrics and received attention against their definitions in float64.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "metrics/received.h"
#include "metrics/row_metrics.h"
#include "softmax/softmax_attention.h"

namespace {

using namespace rattention::test;
using rattention::Masks;

constexpr rattention::MetricDistances kDistances{5, 50};

struct Measured {
  explicit Measured(const Shape& shape)
      : rows(8, std::vector<float>(static_cast<std::size_t>(shape.batch * shape.heads * shape.queries))),
        max_position(rows[0].size()),
        received(static_cast<std::size_t>(shape.batch * shape.heads * shape.keys)) {}

  rattention::RowMetricOutputs outputs() {
    return {rows[0].data(), rows[1].data(), rows[2].data(), rows[3].data(),     rows[4].data(),
            rows[5].data(), rows[6].data(), rows[7].data(), max_position.data()};
  }

  std::vector<std::vector<float>> rows;
  std::vector<std::int64_t> max_position;
  std::vector<float> received;
};

Measured measure(const rattention::ScoreProblem& problem, const Shape& shape) {
  Measured measured(shape);
  std::vector<double> lse(measured.max_position.size());
  rattention::SoftmaxForward want;
  want.lse = lse.data();
  want.observer = row_metrics(problem, kDistances, measured.outputs());
  rattention::softmax_forward(problem, want);
  rattention::attention_received(problem, lse.data(), measured.received.data());
  return measured;
}

// One visible key of a row.
struct Seen {
  Eigen::Index key;
  Eigen::Index distance;
  double weight;
};

std::vector<Seen> seen_keys(const Matrix& scores, double sink, Eigen::Index row, Eigen::Index position) {
  std::vector<Seen> seen;
  const double top = scores.row(row).maxCoeff();
  double total = std::exp(sink - top);
  for (Eigen::Index j = 0; j < scores.cols(); ++j) {
    if (std::isinf(scores(row, j))) continue;
    seen.push_back({j, std::abs(j - position), std::exp(scores(row, j) - top)});
    total += seen.back().weight;
  }
  for (Seen& key : seen) key.weight /= total;
  return seen;
}

double mean_weight(const std::vector<Seen>& keys, std::size_t first, std::size_t count) {
  double sum = 0;
  for (std::size_t k = first; k < first + count; ++k) sum += keys[k].weight;
  return sum / static_cast<double>(count);
}

// Mean weight of the nearest quarter over that of the farthest, ties to the lower index.
double recent_distant_ratio(std::vector<Seen> context) {
  if (context.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const std::size_t quarter = std::max<std::size_t>(1, context.size() / 4);
  std::stable_sort(context.begin(), context.end(),
                   [](const Seen& a, const Seen& b) { return a.distance < b.distance; });
  const double near = mean_weight(context, 0, quarter);
  std::sort(context.begin(), context.end(), [](const Seen& a, const Seen& b) { return a.key < b.key; });
  std::stable_sort(context.begin(), context.end(),
                   [](const Seen& a, const Seen& b) { return a.distance > b.distance; });
  return near / mean_weight(context, 0, quarter);
}

double retention(double entropy, double local, double far_mass, double far_share, std::size_t visible) {
  double sum = 1 - local;
  int terms = 1;
  if (visible > 1) {
    sum += entropy / std::log(static_cast<double>(visible));
    ++terms;
  }
  if (far_share > 0) {
    sum += std::min(1.0, far_mass / far_share);
    ++terms;
  }
  return sum / terms;
}

void compare_row(const Measured& got, std::size_t at, const std::vector<Seen>& seen, Eigen::Index position) {
  double entropy = 0, local = 0, far = 0, far_keys = 0;
  std::vector<Seen> context;
  Seen largest{-1, 0, 0.0};
  for (const Seen& key : seen) {
    entropy -= key.weight > 0 ? key.weight * std::log(key.weight) : 0;
    if (key.distance <= kDistances.local_radius) local += key.weight;
    if (key.distance > kDistances.long_range_distance) far += key.weight, ++far_keys;
    if (key.key != position) context.push_back(key);
    if (key.weight > largest.weight) largest = key;
  }
  const double mean = context.empty() ? 0 : mean_weight(context, 0, context.size());
  double variance = 0;
  for (const Seen& key : context) variance += (key.weight - mean) * (key.weight - mean);
  const double deviation = context.empty() ? 0 : std::sqrt(variance / static_cast<double>(context.size()));

  constexpr double kTolerance = 2e-5;
  CHECK_CLOSE(got.rows[0][at], entropy, kTolerance);
  CHECK_CLOSE(got.rows[1][at], local, kTolerance);
  CHECK_CLOSE(got.rows[2][at], far, kTolerance);
  const double far_share = far_keys / static_cast<double>(seen.size());
  CHECK_CLOSE(got.rows[3][at], retention(entropy, local, far, far_share, seen.size()), kTolerance);
  CHECK_CLOSE(got.rows[4][at], mean, kTolerance * mean + 1e-9);
  CHECK_CLOSE(got.rows[5][at], deviation, kTolerance * deviation + 1e-8);
  const double ratio = recent_distant_ratio(context);
  if (std::isnan(ratio)) {
    CHECK(std::isnan(got.rows[6][at]));
  } else {
    CHECK_CLOSE(got.rows[6][at], ratio, 5 * kTolerance * ratio);
  }
  CHECK_CLOSE(got.rows[7][at], largest.weight, kTolerance);
  CHECK(got.max_position[at] == largest.key);
}

void compare_empty_row(const Measured& got, std::size_t at) {
  for (const std::size_t metric : {0U, 1U, 2U, 4U, 5U, 7U}) CHECK(got.rows[metric][at] == 0.0F);
  CHECK(std::isnan(got.rows[6][at]));
  CHECK(got.max_position[at] == -1);
}

void compare(const rattention::ScoreProblem& problem, const Inputs& inputs, const Shape& shape) {
  const Measured got = measure(problem, shape);
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const Matrix scores = reference_scores(problem, inputs, b, h);
      Eigen::VectorXd received = Eigen::VectorXd::Zero(shape.keys);
      Eigen::VectorXd watchers = Eigen::VectorXd::Zero(shape.keys);
      for (std::int64_t i = 0; i < shape.queries; ++i) {
        const auto at = static_cast<std::size_t>((b * shape.heads + h) * shape.queries + i);
        const std::vector<Seen> seen = seen_keys(scores, sink_of(problem, h), i, problem.masks.position(i));
        if (seen.empty()) {
          compare_empty_row(got, at);
        } else {
          compare_row(got, at, seen, problem.masks.position(i));
        }
        for (const Seen& key : seen) {
          received(key.key) += key.weight;
          watchers(key.key) += 1;
        }
      }
      for (std::int64_t j = 0; j < shape.keys; ++j) {
        const auto at = static_cast<std::size_t>((b * shape.heads + h) * shape.keys + j);
        CHECK_CLOSE(got.received[at], received(j) / std::max(1.0, watchers(j)), 1e-5);
      }
    }
}

void compare(const Shape& shape, const Masks& masks) {
  const Inputs inputs(shape);
  compare(problem_of(inputs, masks), inputs, shape);
}

const Shape kShapes[] = {{1, 1, 1, 1, 1, 4, 4},
                         {1, 4, 2, 50, 130, 16, 16},
                         {2, 1, 1, 260, 260, 33, 33},
                         {1, 2, 1, 9, 1100, 64, 64},
                         {1, 1, 1, 30, 10, 8, 8}};

void full_causal_and_windowed() {
  for (const Shape& shape : kShapes) {
    compare(shape, reach(Masks::kUnlimited, Masks::kUnlimited));
    compare(shape, reach(Masks::kUnlimited, 0));
    compare(shape, reach(70, 0));
    compare(shape, reach(0, 3));
  }
}

void padding() {
  const Shape shape{2, 2, 1, 70, 530, 32, 32};
  const Padding padded(shape);
  Masks masks = reach(200, 0);
  masks.padding = padded.mask();
  compare(shape, masks);
}

void packed_sequences_and_blocks_that_see_both_sides() {
  const Shape shape{2, 2, 1, 260, 260, 16, 16};
  Masks masks = reach(30, 0);
  masks.key_length = shape.keys;
  masks.blocks = runs(shape, 20, false);
  masks.within = runs(shape, 40, true);
  compare(shape, masks);
}

// Weights that sum to less than one.
void sinks() {
  for (const Shape& shape : kShapes) {
    const Inputs inputs(shape);
    const HeadTerms terms(shape, 3);
    rattention::ScoreProblem problem = problem_of(inputs, reach(70, 0));
    problem.sinks = terms.sinks.values().data();
    compare(problem, inputs, shape);
  }
}

}  // namespace

int main() {
  return rattention::test::run({
      {"full, causal and windowed", full_causal_and_windowed},
      {"padding", padding},
      {"packed sequences and blocks that see both sides", packed_sequences_and_blocks_that_see_both_sides},
      {"sinks", sinks},
  });
}
