// Attention problems with random inputs, and their scores by the definition in float64.
#pragma once

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "mechanisms/score_tiles.h"

namespace rattention::test {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatMap = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

struct Shape {
  std::int64_t batch, heads, kv_heads, queries, keys, dim, value_dim;
};

// A contiguous float32 array [batch, heads, length, dim].
class Array {
 public:
  Array(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim)
      : shape_{batch, heads, length, dim}, data_(static_cast<std::size_t>(batch * heads * length * dim)) {}

  static Array normal(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim, unsigned seed) {
    Array array(batch, heads, length, dim);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (float& x : array.data_) x = normal(generator);
    return array;
  }

  TensorView view() const {
    const std::int64_t row = shape_[3] * 4;
    return {bytes(), DType::f32, shape_, {shape_[1] * shape_[2] * row, shape_[2] * row, row, 4}};
  }
  OutputView output() { return {reinterpret_cast<std::byte*>(data_.data()), DType::f32, shape_}; }
  FloatMap matrix(std::int64_t b, std::int64_t h) const {
    return {data_.data() + (b * shape_[1] + h) * shape_[2] * shape_[3], shape_[2], shape_[3]};
  }
  const std::vector<float>& values() const { return data_; }

 private:
  const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(data_.data()); }

  std::array<std::int64_t, 4> shape_;
  std::vector<float> data_;
};

struct Inputs {
  explicit Inputs(const Shape& shape)
      : query(Array::normal(shape.batch, shape.heads, shape.queries, shape.dim, 1)),
        key(Array::normal(shape.batch, shape.kv_heads, shape.keys, shape.dim, 2)),
        value(Array::normal(shape.batch, shape.kv_heads, shape.keys, shape.value_dim, 3)) {}

  Array query, key, value;
};

inline ScoreProblem problem_of(const Inputs& inputs, const Shape& shape, Masks masks) {
  ScoreProblem problem;
  problem.query = inputs.query.view();
  problem.key = inputs.key.view();
  problem.scale = 1.0F / std::sqrt(static_cast<float>(shape.dim));
  problem.masks = masks;
  problem.masks.key_length = shape.keys;
  problem.masks.query_offset = shape.keys - shape.queries;
  problem.row_count = shape.queries;
  return problem;
}

inline bool sees(const Masks& masks, std::int64_t b, std::int64_t row, std::int64_t key) {
  const std::int64_t distance = row + masks.query_offset - key;
  if (masks.left != Masks::kUnlimited && distance > masks.left) return false;
  if (masks.right != Masks::kUnlimited && -distance > masks.right) return false;
  return !masks.padding ||
         masks.padding->data[b * masks.padding->strides[0] + key * masks.padding->strides[1]] != std::byte{0};
}

// Scores with -inf where hidden.
inline Matrix reference_scores(const ScoreProblem& problem, const Inputs& inputs, std::int64_t b, std::int64_t h) {
  const Matrix query = inputs.query.matrix(b, h).cast<double>();
  const Matrix key = inputs.key.matrix(b, h / problem.group()).cast<double>();
  Matrix scores = static_cast<double>(problem.scale) * (query * key.transpose());
  for (Eigen::Index i = 0; i < scores.rows(); ++i)
    for (Eigen::Index j = 0; j < scores.cols(); ++j) {
      if (!sees(problem.masks, b, i, j)) scores(i, j) = -std::numeric_limits<double>::infinity();
    }
  return scores;
}

inline Masks reach(std::int64_t left, std::int64_t right) {
  Masks masks;
  masks.left = left;
  masks.right = right;
  return masks;
}

}  // namespace rattention::test
