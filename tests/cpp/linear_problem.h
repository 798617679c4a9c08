// Residual linear attention with random inputs, and its rows and gradients by the quadratic form in float64: row t is
// sum_j (phi(q_t) . phi(k_j)) v_j over the keys more than `window` tokens before it, and phi(q_t) times the initial
// state.
#pragma once

#include "attention_problem.h"
#include "linear/scan_plan.h"

namespace rattention::test {

struct LinearShape {
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;

  Shape shape() const { return {batch, heads, kv_heads, length, length, dim, value_dim}; }
};

inline LinearProblem linear_problem_of(const Inputs& inputs, std::int64_t window, FeatureMap map) {
  LinearProblem problem;
  problem.query = inputs.query.view();
  problem.key = inputs.key.view();
  problem.value = inputs.value.view();
  problem.window = window;
  problem.feature_map = map;
  return problem;
}

// An initial state [batch, heads, 2 dim, value_dim]; the heads are those of keys or of queries.
inline Array initial_state(const LinearShape& shape, std::int64_t heads) {
  return Array::normal(shape.batch, heads, 2 * shape.dim, shape.value_dim, 6);
}

// One query head, and what its gradients are.
class LinearHead {
 public:
  LinearHead(const LinearProblem& problem, const Inputs& inputs, std::int64_t b, std::int64_t h)
      : map_(problem.feature_map),
        query_(inputs.query.matrix(b, h).cast<double>()),
        key_(inputs.key.matrix(b, h / problem.group()).cast<double>()),
        value_(inputs.value.matrix(b, h / problem.group()).cast<double>()),
        start_(Matrix::Zero(2 * key_.cols(), value_.cols())),
        seen_(Matrix::NullaryExpr(query_.rows(), key_.rows(), [&](Eigen::Index t, Eigen::Index j) {
          return t - j > problem.window && !problem.hidden(b, j) ? 1.0 : 0.0;
        })) {
    if (problem.initial_state == nullptr) return;
    const std::int64_t head = b * problem.state_heads + h * problem.state_heads / problem.query.heads();
    start_ = FloatMap(problem.initial_state + head * start_.size(), start_.rows(), start_.cols()).cast<double>();
  }

  Matrix rows() const {
    return seen_.cwiseProduct(phi_query() * phi_key().transpose()) * value_ + phi_query() * start_;
  }
  // What the last row reads.
  Matrix final_state() const {
    return start_ + phi_key().transpose() * seen_.row(seen_.rows() - 1).asDiagonal() * value_;
  }

  struct Gradients {
    Matrix query, key, value, initial_state;
  };
  Gradients gradients(const Matrix& grad_rows) const {
    const Matrix products = seen_.cwiseProduct(phi_query() * phi_key().transpose());
    const Matrix grad_products = seen_.cwiseProduct(grad_rows * value_.transpose());
    const Matrix grad_query = grad_products * phi_key() + grad_rows * start_.transpose();
    return {features_backward(query_, grad_query, map_),
            features_backward(key_, grad_products.transpose() * phi_query(), map_), products.transpose() * grad_rows,
            phi_query().transpose() * grad_rows};
  }
  // Of the final state, which belongs to the key/value head (or to the query head where each has an initial state).
  Gradients gradients_of_state(const Matrix& grad_state) const {
    const auto last = seen_.row(seen_.rows() - 1).asDiagonal();
    return {Matrix::Zero(query_.rows(), query_.cols()),
            features_backward(key_, last * value_ * grad_state.transpose(), map_), last * phi_key() * grad_state,
            grad_state};
  }

 private:
  Matrix phi_query() const { return features(query_, map_); }
  Matrix phi_key() const { return features(key_, map_); }

  FeatureMap map_;
  Matrix query_, key_, value_;
  Matrix start_;
  Matrix seen_;  // 1 where row t sees key j
};

}  // namespace rattention::test
