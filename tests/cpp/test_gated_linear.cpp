// Gated linear attention, forward and backward, against the sum over all pairs in float64: row t is
// scale sum_j (q_t . k_j) D_tj v_j with D_tj the product of the gates after j up to t - window - 1.
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "core/threads.h"
#include "linear/residual_linear.h"
#include "linear/residual_linear_backward.h"

namespace {

using namespace rattention::test;
using rattention::LinearProblem;

struct Gated {
  Gated(const Shape& of, std::int64_t window, float strongest) : shape(of), inputs(of) {
    gates = Array::positive(of.batch, of.kv_heads, of.keys, 1, 7);
    for (std::int64_t i = 0; i < of.batch * of.kv_heads * of.keys; ++i) gates.data()[i] *= -strongest;
    problem.query = inputs.query.view();
    problem.key = inputs.key.view();
    problem.value = inputs.value.view();
    problem.feature_map = rattention::FeatureMap::none;
    problem.window = window;
    problem.log_gates = gates.data();
    problem.scale = 0.7F;
  }
  Gated(const Gated&) = delete;

  // One head: scaled D, and what pairs by rows and columns are made of.
  Matrix decay(std::int64_t b, std::int64_t h) const {
    const Matrix logs = gates.matrix(b, h / problem.group()).cast<double>();
    Matrix left = Matrix::Zero(shape.keys, shape.keys);
    for (Eigen::Index j = 0; j < left.cols(); ++j) {
      double sum = 0.0;
      for (Eigen::Index last = j; last + problem.window + 1 < left.rows(); ++last) {
        if (last > j) sum += logs(last, 0);
        left(last + problem.window + 1, j) = 0.7F * std::exp(sum);
      }
    }
    return left;
  }
  Matrix query(std::int64_t b, std::int64_t h) const { return inputs.query.matrix(b, h).cast<double>(); }
  Matrix key(std::int64_t b, std::int64_t h) const { return inputs.key.matrix(b, h / problem.group()).cast<double>(); }
  Matrix value(std::int64_t b, std::int64_t h) const {
    return inputs.value.matrix(b, h / problem.group()).cast<double>();
  }

  Shape shape;
  Inputs inputs;
  Array gates{0, 0, 0, 0};
  LinearProblem problem;
};

struct Results {
  explicit Results(const Gated& of)
      : output(of.shape.batch, of.shape.heads, of.shape.keys, of.shape.value_dim),
        grad(Array::normal(of.shape.batch, of.shape.heads, of.shape.keys, of.shape.value_dim, 4)),
        query(of.shape.batch, of.shape.heads, of.shape.keys, of.shape.dim),
        key(of.shape.batch, of.shape.kv_heads, of.shape.keys, of.shape.dim),
        value(of.shape.batch, of.shape.kv_heads, of.shape.keys, of.shape.value_dim),
        gates(of.shape.batch, of.shape.kv_heads, of.shape.keys, 1) {
    const rattention::ScanPlan plan(of.problem);
    const rattention::OutputView rows = output.output();
    rattention::LinearForward want;
    want.output = &rows;
    linear_forward(of.problem, plan, want);
    rattention::LinearGradients gradients{query.data(), key.data(), value.data()};
    gradients.log_gates = gates.data();
    linear_backward(of.problem, plan, {grad.view(), nullptr, nullptr}, gradients);
  }

  Array output, grad, query, key, value, gates;
};

// dL/d(ln a_s) sums pairs whose key lies before s and whose row reads it at s or later.
Matrix gate_gradients(const Matrix& pairs, std::int64_t window) {
  Matrix sums = Matrix::Zero(pairs.cols(), 1);
  for (Eigen::Index s = 1; s + window + 1 < pairs.rows(); ++s) {
    sums(s, 0) = pairs.bottomLeftCorner(pairs.rows() - s - window - 1, s).sum();
  }
  return sums;
}

void compare(const Gated& of) {
  const Results got(of);
  const std::int64_t group = of.problem.group();
  for (std::int64_t b = 0; b < of.shape.batch; ++b)
    for (std::int64_t k = 0; k < of.shape.kv_heads; ++k) {
      Matrix key = Matrix::Zero(of.shape.keys, of.shape.dim);
      Matrix value = Matrix::Zero(of.shape.keys, of.shape.value_dim);
      Matrix gates = Matrix::Zero(of.shape.keys, 1);
      for (std::int64_t h = k * group; h < (k + 1) * group; ++h) {
        const Matrix decay = of.decay(b, h);
        const Matrix grad = got.grad.matrix(b, h).cast<double>();
        const Matrix weights = decay.cwiseProduct(of.query(b, h) * of.key(b, h).transpose());
        const Matrix slopes = decay.cwiseProduct(grad * of.value(b, h).transpose());
        CHECK_NEAR(got.output.matrix(b, h), weights * of.value(b, h), 1e-5);
        CHECK_NEAR(got.query.matrix(b, h), slopes * of.key(b, h), 1e-5);
        key += slopes.transpose() * of.query(b, h);
        value += weights.transpose() * grad;
        gates += gate_gradients(weights.cwiseProduct(grad * of.value(b, h).transpose()), of.problem.window);
      }
      CHECK_NEAR(got.key.matrix(b, k), key, 1e-5);
      CHECK_NEAR(got.value.matrix(b, k), value, 1e-5);
      CHECK_NEAR(got.gates.matrix(b, k), gates, 1e-5);
    }
}

void lengths_and_decays() {
  for (const std::int64_t length : {1, 47, 48, 49, 97, 500})
    for (const float strongest : {0.0F, 0.02F, 1.0F, 50.0F}) compare({{2, 2, 2, length, length, 8, 6}, -1, strongest});
}

void windows_and_groups() {
  for (const std::int64_t window : {-1, 0, 5, 60, 200}) compare({{1, 6, 2, 150, 150, 17, 33}, window, 0.1F});
}

void results_do_not_depend_on_threads() {
  const Gated problem({1, 2, 1, 1500, 1500, 16, 16}, 31, 0.05F);
  rattention::set_num_threads(1);
  const Results alone(problem);
  for (const int threads : {2, 3, 8}) {
    rattention::set_num_threads(threads);
    const Results together(problem);
    CHECK(together.output.values() == alone.output.values());
    CHECK(together.query.values() == alone.query.values());
    CHECK(together.key.values() == alone.key.values());
    CHECK(together.gates.values() == alone.gates.values());
  }
  rattention::set_num_threads(0);
}

}  // namespace

int main() {
  return rattention::test::run({
      {"lengths and decays", lengths_and_decays},
      {"windows and groups", windows_and_groups},
      {"results do not depend on threads", results_do_not_depend_on_threads},
  });
}
