// What the mechanisms are made of, and their gradients, in float64 by the definitions. A matrix is one head.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>

#include "linear/feature_map.h"

namespace rattention::test {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Row = Eigen::RowVectorXd;

// The softmax of a row of scores beside a sink, 0 where all are -inf. Hidden keys get an exact 0: Eigen's exp(-inf) is
// a denormal number, and products with those take ten times as long.
inline Row softmax(const Row& scores, double sink = -std::numeric_limits<double>::infinity()) {
  if (scores.size() == 0 || std::isinf(scores.maxCoeff())) return Row::Zero(scores.size());
  const double top = std::max(scores.maxCoeff(), sink);
  const Row weights = (scores.array() - top).exp() * scores.array().isFinite().cast<double>();
  return weights / (weights.sum() + std::exp(sink - top));
}

inline Matrix softmax_of_rows(Matrix scores, double sink = -std::numeric_limits<double>::infinity()) {
  for (Eigen::Index i = 0; i < scores.rows(); ++i) scores.row(i) = softmax(scores.row(i), sink);
  return scores;
}

// dL/dscores of rows whose softmax is `weights`, from dL/dweights.
inline Matrix softmax_backward_of_rows(const Matrix& weights, const Matrix& grad) {
  const Eigen::VectorXd means = weights.cwiseProduct(grad).rowwise().sum();
  return weights.cwiseProduct(grad.colwise() - means);
}

// phi(x) = [f(x), f(-x)], row by row.
inline Matrix features(const Matrix& x, FeatureMap map) {
  Matrix phi(x.rows(), 2 * x.cols());
  if (map == FeatureMap::softmax) {
    phi << softmax_of_rows(x), softmax_of_rows(-x);
  } else {
    phi << x.cwiseMax(0), (-x).cwiseMax(0);
  }
  return phi;
}

inline Matrix features_backward(const Matrix& x, const Matrix& grad, FeatureMap map) {
  const auto ahead = grad.leftCols(x.cols());
  const auto behind = grad.rightCols(x.cols());
  if (map == FeatureMap::softmax) {
    return softmax_backward_of_rows(softmax_of_rows(x), ahead) - softmax_backward_of_rows(softmax_of_rows(-x), behind);
  }
  const Matrix above = (x.array() > 0).cast<double>();
  const Matrix below = (x.array() < 0).cast<double>();
  return above.cwiseProduct(ahead) - below.cwiseProduct(behind);
}

// Every row turned to its position by a rotary embedding, or back.
inline Matrix turned(Matrix x, double theta, double direction = 1) {
  if (theta == 0) return x;
  const Eigen::Index half = x.cols() / 2;
  for (Eigen::Index t = 0; t < x.rows(); ++t)
    for (Eigen::Index i = 0; i < half; ++i) {
      const double frequency = std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
      const auto turn = std::polar(1.0, direction * static_cast<double>(t) * frequency);
      const std::complex<double> pair = std::complex<double>(x(t, i), x(t, half + i)) * turn;
      x(t, i) = pair.real();
      x(t, half + i) = pair.imag();
    }
  return x;
}

// RMSNorm of every row, times `weight`.
inline Matrix rms_norm(const Matrix& x, const Row& weight, double eps) {
  const Eigen::VectorXd scale = (x.rowwise().squaredNorm().array() / static_cast<double>(x.cols()) + eps).rsqrt();
  return scale.asDiagonal() * x * weight.asDiagonal();
}

// dL/dx, and dL/dweight added to `grad_weight`.
inline Matrix rms_norm_backward(const Matrix& x, const Row& weight, double eps, const Matrix& grad, Row* grad_weight) {
  const Eigen::VectorXd scale = (x.rowwise().squaredNorm().array() / static_cast<double>(x.cols()) + eps).rsqrt();
  *grad_weight += (scale.asDiagonal() * x).cwiseProduct(grad).colwise().sum();
  const Matrix weighted = grad * weight.asDiagonal();
  const Eigen::VectorXd along = x.cwiseProduct(weighted).rowwise().mean().cwiseProduct(scale.array().cube().matrix());
  return scale.asDiagonal() * weighted - along.asDiagonal() * x;
}

}  // namespace rattention::test
