// RAttention, forward and backward, against RMSNorm(sliding window) + RMSNorm(residual linear attention) in float64.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "core/threads.h"
#include "linear_problem.h"
#include "rattention/rattention.h"

namespace {

using namespace rattention::test;
using rattention::FeatureMap;
using rattention::RAttentionProblem;

constexpr double kEps = 1e-3;

// A problem with weights of both norms.
struct Setting {
  Setting(const LinearShape& sizes, std::int64_t window, FeatureMap map, double base)
      : shape(sizes),
        theta(base),
        inputs(sizes.shape()),
        local_weight(Array::normal(1, 1, sizes.heads, sizes.value_dim, 21)),
        linear_weight(Array::normal(1, 1, sizes.heads, sizes.value_dim, 22)) {
    problem.linear = linear_problem_of(inputs, window, map);
    problem.scale = 1.0F / std::sqrt(static_cast<float>(sizes.dim));
    problem.rope = rattention::rotary_rates(sizes.dim, theta);
    problem.norms.local_weight = local_weight.values().data();
    problem.norms.linear_weight = linear_weight.values().data();
    problem.norms.eps = static_cast<float>(kEps);
  }

  LinearShape shape;
  double theta;
  Inputs inputs;
  Array local_weight, linear_weight;
  RAttentionProblem problem;
};

Array forward(const Setting& test) {
  Array output(test.shape.batch, test.shape.heads, test.shape.length, test.shape.value_dim);
  const rattention::OutputView rows = output.output();
  rattention::LinearForward want;
  want.output = &rows;
  rattention_forward(test.problem, want);
  return output;
}

struct Backward {
  explicit Backward(const Setting& test)
      : grad_output(Array::normal(test.shape.batch, test.shape.heads, test.shape.length, test.shape.value_dim, 4)),
        query(test.shape.batch, test.shape.heads, test.shape.length, test.shape.dim),
        key(test.shape.batch, test.shape.kv_heads, test.shape.length, test.shape.dim),
        value(test.shape.batch, test.shape.kv_heads, test.shape.length, test.shape.value_dim),
        local_weight(1, 1, test.shape.heads, test.shape.value_dim),
        linear_weight(1, 1, test.shape.heads, test.shape.value_dim) {
    rattention_backward(test.problem, {grad_output.view(), nullptr},
                        {{query.data(), key.data(), value.data(), nullptr}, local_weight.data(), linear_weight.data()});
  }

  Array grad_output, query, key, value, local_weight, linear_weight;
};

// The sliding window of one query head.
struct Local {
  Local(const Setting& test, std::int64_t b, std::int64_t h)
      : theta(test.theta),
        scale(static_cast<double>(test.problem.scale)),
        query(turned(test.inputs.query.matrix(b, h).cast<double>(), theta)),
        key(turned(test.inputs.key.matrix(b, h / test.problem.linear.group()).cast<double>(), theta)),
        value(test.inputs.value.matrix(b, h / test.problem.linear.group()).cast<double>()) {
    Matrix scores = scale * (query * key.transpose());
    for (Eigen::Index t = 0; t < scores.rows(); ++t)
      for (Eigen::Index j = 0; j < scores.cols(); ++j) {
        const bool seen = j <= t && t - j <= test.problem.linear.window && !test.problem.linear.hidden(b, j);
        if (!seen) scores(t, j) = -std::numeric_limits<double>::infinity();
      }
    weights = softmax_of_rows(scores);
  }

  Matrix rows() const { return weights * value; }
  LinearHead::Gradients gradients(const Matrix& grad_rows) const {
    const Matrix grad_scores = scale * softmax_backward_of_rows(weights, grad_rows * value.transpose());
    return {turned(grad_scores * key, theta, -1), turned(grad_scores.transpose() * query, theta, -1),
            weights.transpose() * grad_rows, Matrix()};
  }

  double theta, scale;
  Matrix query, key, value, weights;
};

void compare_group(const Setting& test, const Array& output, const Backward& got, std::int64_t b,
                   std::int64_t kv_head) {
  const std::int64_t group = test.problem.linear.group();
  Matrix key = Matrix::Zero(test.shape.length, test.shape.dim);
  Matrix value = Matrix::Zero(test.shape.length, test.shape.value_dim);
  for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    const Local local(test, b, h);
    const LinearHead linear(test.problem.linear, test.inputs, b, h);
    const Row local_weight = test.local_weight.matrix(0, 0).row(h).cast<double>();
    const Row linear_weight = test.linear_weight.matrix(0, 0).row(h).cast<double>();
    CHECK_NEAR(output.matrix(b, h),
               rms_norm(local.rows(), local_weight, kEps) + rms_norm(linear.rows(), linear_weight, kEps), 1e-5);
    const Matrix grad = got.grad_output.matrix(b, h).cast<double>();
    Row grad_local = Row::Zero(grad.cols()), grad_linear = Row::Zero(grad.cols());
    const auto of_local = local.gradients(rms_norm_backward(local.rows(), local_weight, kEps, grad, &grad_local));
    const auto of_linear = linear.gradients(rms_norm_backward(linear.rows(), linear_weight, kEps, grad, &grad_linear));
    CHECK_NEAR(got.query.matrix(b, h), of_local.query + of_linear.query, 2e-5);
    CHECK_NEAR(got.local_weight.matrix(0, 0).row(h), grad_local, 2e-5);
    CHECK_NEAR(got.linear_weight.matrix(0, 0).row(h), grad_linear, 2e-5);
    key += of_local.key + of_linear.key;
    value += of_local.value + of_linear.value;
  }
  CHECK_NEAR(got.key.matrix(b, kv_head), key, 2e-5);
  CHECK_NEAR(got.value.matrix(b, kv_head), value, 2e-5);
}

void compare(const Setting& test) {
  const Array output = forward(test);
  const Backward got(test);
  for (std::int64_t kv_head = 0; kv_head < test.shape.kv_heads; ++kv_head) {
    compare_group(test, output, got, 0, kv_head);
  }
}

// One batch entry, so that the norms' weights belong to one head. Around chunks of 48 tokens and stretches of 384.
const LinearShape kShapes[] = {
    {1, 1, 1, 1, 2, 1}, {1, 4, 2, 47, 8, 5}, {1, 2, 1, 49, 34, 40}, {1, 8, 1, 130, 6, 17}, {1, 2, 2, 400, 4, 9}};

void windows_and_feature_maps() {
  for (const LinearShape& shape : kShapes)
    for (const FeatureMap map : {FeatureMap::softmax, FeatureMap::relu})
      for (const std::int64_t window : {std::int64_t{-1}, std::int64_t{0}, std::int64_t{31}, shape.length}) {
        compare(Setting(shape, std::min(window, shape.length), map, 0));
      }
}

void rotary_embedding() {
  for (const LinearShape& shape : kShapes)
    compare(Setting(shape, std::min<std::int64_t>(60, shape.length), FeatureMap::softmax, 1e4));
}

void padding() {
  Setting test({1, 4, 2, 500, 8, 12}, 20, FeatureMap::softmax, 1e4);
  const Padding padded(test.shape.shape());
  test.problem.linear.padding = padded.mask();
  compare(test);
}

void results_do_not_depend_on_threads() {
  const Setting test({1, 2, 1, 1500, 16, 16}, 100, FeatureMap::softmax, 1e4);
  rattention::set_num_threads(1);
  const Array alone = forward(test);
  const Backward alone_back(test);
  for (const int threads : {2, 3, 8}) {
    rattention::set_num_threads(threads);
    CHECK(forward(test).values() == alone.values());
    const Backward together(test);
    CHECK(together.query.values() == alone_back.query.values());
    CHECK(together.key.values() == alone_back.key.values());
    CHECK(together.value.values() == alone_back.value.values());
    CHECK(together.local_weight.values() == alone_back.local_weight.values());
  }
  rattention::set_num_threads(0);
}

}  // namespace

int main() {
  return rattention::test::run({
      {"windows and feature maps", windows_and_feature_maps},
      {"rotary embedding", rotary_embedding},
      {"padding", padding},
      {"results do not depend on threads", results_do_not_depend_on_threads},
  });
}
