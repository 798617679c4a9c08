// Attention problems with random inputs, and their scores by the definition in float64.
#pragma once

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/rows.h"
#include "reference.h"
#include "softmax/rule_gravity.h"
#include "softmax/rule_softcap.h"
#include "softmax/score_problem.h"

namespace rattention::test {

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

  static Array positive(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim, unsigned seed) {
    Array array = normal(batch, heads, length, dim, seed);
    for (float& x : array.data_) x = std::fabs(x);
    return array;
  }

  TensorView view() const { return view_of(data_.data(), shape_); }
  OutputView output() { return output_of(data_.data(), shape_); }
  FloatMap matrix(std::int64_t b, std::int64_t h) const {
    return {data_.data() + (b * shape_[1] + h) * shape_[2] * shape_[3], shape_[2], shape_[3]};
  }
  const std::vector<float>& values() const { return data_; }
  float* data() { return data_.data(); }

 private:
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

// The masks of `masks`.
inline ScoreProblem problem_of(const Inputs& inputs, const Masks& masks) {
  ScoreProblem problem = scaled_dot_product(inputs.query.view(), inputs.key.view());
  problem.masks.left = masks.left;
  problem.masks.right = masks.right;
  problem.masks.padding = masks.padding;
  problem.masks.within = masks.within;
  problem.masks.blocks = masks.blocks;
  return problem;
}

inline bool sees(const Masks& masks, std::int64_t b, std::int64_t row, std::int64_t key) {
  const std::int64_t position = row + masks.query_offset;
  const auto holds = [&](const PositionSpans& spans) {
    const KeySpan span = (*spans)[static_cast<std::size_t>(b * masks.key_length + position)];
    return span.first <= key && key < span.last;
  };
  const bool in_block = masks.blocks && position >= 0 && holds(masks.blocks);
  const std::int64_t distance = position - key;
  if (!in_block && masks.left != Masks::kUnlimited && distance > masks.left) return false;
  if (!in_block && masks.right != Masks::kUnlimited && -distance > masks.right) return false;
  if (masks.within && !holds(masks.within)) return false;
  return !masks.padding ||
         masks.padding->data[b * masks.padding->strides[0] + key * masks.padding->strides[1]] != std::byte{0};
}

inline double mass_of(const TensorView& masses, std::int64_t b, std::int64_t h, std::int64_t i) {
  return static_cast<double>(load_element(masses.row(b, h, i), masses.dtype));
}

// nullptr where scores are dot products.
inline const Gravity* gravity_of(const ScoreProblem& problem) {
  const auto* rule = dynamic_cast<const GravityRule*>(problem.rule.get());
  return rule != nullptr ? &rule->gravity() : nullptr;
}

// 0 where scores are not bounded.
inline double softcap_of(const ScoreProblem& problem) {
  const auto* rule = dynamic_cast<const SoftcapRule*>(problem.rule.get());
  return rule != nullptr ? static_cast<double>(rule->cap()) : 0;
}

inline double sink_of(const ScoreProblem& problem, std::int64_t h) {
  return problem.sinks != nullptr ? static_cast<double>(problem.sinks[h]) : -std::numeric_limits<double>::infinity();
}

inline double exponent_of(const Gravity& gravity, std::int64_t h) {
  return gravity.exponent != nullptr ? static_cast<double>(gravity.exponent[h]) : 2;
}

// Scores with -inf where hidden.
inline Matrix reference_scores(const ScoreProblem& problem, const Inputs& inputs, std::int64_t b, std::int64_t h) {
  const Matrix query = inputs.query.matrix(b, h).cast<double>();
  const Matrix key = inputs.key.matrix(b, h / problem.group()).cast<double>();
  Matrix scores = static_cast<double>(problem.scale) * (query * key.transpose());
  for (Eigen::Index i = 0; i < scores.rows(); ++i)
    for (Eigen::Index j = 0; j < scores.cols(); ++j) {
      if (gravity_of(problem) != nullptr) {
        const Gravity& gravity = *gravity_of(problem);
        scores(i, j) =
            static_cast<double>(gravity.strength[h]) * mass_of(gravity.query_mass, b, h, i) *
            mass_of(gravity.key_mass, b, gravity.mass_head(h, problem.query.heads()), j) /
            (std::pow((query.row(i) - key.row(j)).norm(), exponent_of(gravity, h)) + static_cast<double>(gravity.eps));
      }
      const double cap = softcap_of(problem);
      if (cap > 0) scores(i, j) = cap * std::tanh(scores(i, j) / cap);
      if (problem.relative_bias) {
        scores(i, j) += static_cast<double>(problem.relative_bias->at(h, j - problem.masks.position(i)));
      }
      if (problem.log_discount != nullptr) {
        scores(i, j) += static_cast<double>(problem.log_discount_of(b, h, i)) *
                        static_cast<double>(std::abs(problem.masks.position(i) - j));
      }
      if (!sees(problem.masks, b, i, j)) scores(i, j) = -std::numeric_limits<double>::infinity();
    }
  return scores;
}

// [shape.batch, shape.keys]: some keys of each sequence are hidden, and all of the last ones.
struct Padding {
  explicit Padding(const Shape& shape) : keys(shape.keys), shown(static_cast<std::size_t>(shape.batch * shape.keys)) {
    for (std::size_t j = 0; j < shown.size(); ++j) shown[j] = j % 3 != 0 && j < shown.size() * 6 / 7;
  }
  PaddingMask mask() const { return {reinterpret_cast<const std::byte*>(shown.data()), {keys, 1}}; }

  std::int64_t keys;
  std::vector<std::uint8_t> shown;
};

// What gravitational scores need besides query and key; masses of keys per key/value head or per query head.
class Bodies {
 public:
  Bodies(const Shape& shape, std::int64_t mass_heads)
      : query_mass_(Array::positive(shape.batch, shape.heads, shape.queries, 1, 11)),
        key_mass_(Array::positive(shape.batch, mass_heads, shape.keys, 1, 12)),
        strength_(Array::positive(1, 1, shape.heads, 1, 13)) {}

  // Pulls the queries of `problem` instead of its dot products; exponents are one per head.
  void pull(ScoreProblem* problem, const float* exponents = nullptr) const {
    const Gravity gravity{query_mass_.view(), key_mass_.view(), strength_.values().data(), 0.75F, exponents};
    problem->rule = std::make_shared<GravityRule>(gravity, *problem);
  }

 private:
  Array query_mass_, key_mass_, strength_;
};

// Runs of ids that change every `length` positions, all of them or every second one.
inline PositionSpans runs(const Shape& shape, std::int64_t length, bool every) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(shape.batch * shape.keys));
  for (std::size_t j = 0; j < ids.size(); ++j) {
    const auto at = static_cast<std::int64_t>(j) % shape.keys + static_cast<std::int64_t>(j) / shape.keys;
    ids[j] = every || at / length % 2 == 1 ? at / length : -1;
  }
  return runs_of(ids.data(), shape.batch, shape.keys, 0);
}

// Random numbers for every head: sinks, and biases by distance.
struct HeadTerms {
  HeadTerms(const Shape& shape, std::int64_t reach)
      : sinks(Array::normal(1, 1, 1, shape.heads, 31)), bias(Array::normal(1, 1, shape.heads, 2 * reach + 1, 32)) {
    for (std::int64_t h = 0; h < shape.heads; ++h) sinks.data()[h] *= 3;
    table = std::make_shared<RelativeBias>(bias.data(), shape.heads, reach);
  }

  Array sinks, bias;
  std::shared_ptr<const RelativeBias> table;
};

inline Masks reach(std::int64_t left, std::int64_t right) {
  Masks masks;
  masks.left = left;
  masks.right = right;
  return masks;
}

}  // namespace rattention::test
