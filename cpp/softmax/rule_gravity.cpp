#include "softmax/rule_gravity.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/rows.h"
#include "kernels/tile_kernels.h"
#include "softmax/score_problem.h"

namespace rattention {
namespace {

float mass_at(const TensorView& masses, std::int64_t batch, std::int64_t head, std::int64_t i) {
  return load_element(masses.row(batch, head, i), masses.dtype);
}

class GravityTile : public RuleTile {
 public:
  GravityTile(const ScoreProblem& problem, const Gravity& gravity, std::int64_t rows, const RuleGradients* gradients,
              Scratch& scratch)
      : problem_(problem),
        gravity_(gravity),
        kernels_(tile_kernels()),
        gradients_(gradients),
        masses_(scratch.take(kTileKeys)) {
    if (gradients == nullptr) return;
    distances_ = scratch.take(kBlockRows * kTileStride);
    grad_masses_ = scratch.take(problem.group() * kTileKeys);
    pulls_ = scratch.take(kTileKeys);
    sums_ = scratch.take(rows * kSums);
    std::fill_n(sums_, rows * kSums, 0.0F);
  }

  static std::int64_t floats(const ScoreProblem& problem, std::int64_t rows, bool backward) {
    const auto up = Scratch::round_up;
    if (!backward) return up(kTileKeys);
    return up(kBlockRows * kTileStride) + up(problem.group() * kTileKeys) + 2 * up(kTileKeys) + up(rows * kSums);
  }

  void load_keys(std::int64_t batch, std::int64_t head, KeySpan keys) override {
    keys_ = keys;
    const std::int64_t mass_head = gravity_.mass_head(head, problem_.query.heads());
    for (std::int64_t j = 0; j < keys.size(); ++j) {
      masses_[j] = mass_at(gravity_.key_mass, batch, mass_head, keys.first + j);
    }
  }

  void to_scores(const RuleRow& row, KeySpan keys, float* products) override {
    const std::int64_t n = keys.size();
    if (gravity_.exponent != nullptr) {
      keep_distances(row, keys, products);
      if (gravity_.exponent[row.head] != 2) kernels_.raise(products, n, gravity_.exponent[row.head] / 2);
    }
    kernels_.invert(products, n, gravity_.eps);
    if (gravity_.exponent == nullptr) keep_distances(row, keys, products);
    kernels_.gravitate(products, masses_ + offset(keys), n, factor(row));
  }

  void begin_keys(std::int64_t batch, std::int64_t kv_head, KeySpan keys) override {
    keys_ = keys;
    batch_ = batch;
    kv_head_ = kv_head;
    std::fill_n(grad_masses_, problem_.group() * kTileKeys, 0.0F);
    std::fill_n(pulls_, kTileKeys, 0.0F);
  }

  void to_factors(const RuleRow& row, KeySpan keys, float* gradients) override {
    const GravitySums sums = gradient(row, keys, gradients);
    kernels_.add(pulls_ + offset(keys), gradients, keys.size());
    sum(row, kExponentGradient) += sums.exponent;
    sum(row, kField) += sums.field;
    sum(row, kPull) += sums.pull;
  }

  void finish_key(std::int64_t key, const float* key_row, float* sum) override {
    subtract_from_pull(pulls_[key - keys_.first], key_row, sum);
  }

  void store_keys() override {
    const TensorView& mass = gravity_.key_mass;
    float* gradients = (*gradients_)[GravityRule::kKeyMass];
    for (std::int64_t g = 0; g < problem_.group(); ++g) {
      const std::int64_t head = kv_head_ * problem_.group() + g;
      const std::int64_t row = batch_ * mass.heads() + gravity_.mass_head(head, problem_.query.heads());
      kernels_.add(gradients + row * mass.length() + keys_.first, grad_masses_of(head), keys_.size());
    }
  }

  void finish_query(const RuleRow& row, const float* query, float* total) override {
    subtract_from_pull(sum(row, kPull), query, total);
    const std::int64_t index =
        (row.batch * problem_.query.heads() + row.head) * problem_.query.length() + row.query_row;
    const float field = sum(row, kField);
    (*gradients_)[GravityRule::kQueryMass][index] = gravity_.strength[row.head] * field;
    (*gradients_)[GravityRule::kStrength][index] = query_mass(row) * field;
    if (gravity_.exponent != nullptr) (*gradients_)[GravityRule::kExponent][index] = sum(row, kExponentGradient);
  }

 private:
  // Sums over the keys of a row, side by side.
  enum RowSum { kPull, kField, kExponentGradient, kSums };

  float& sum(const RuleRow& row, RowSum which) { return sums_[row.slot * kSums + which]; }
  std::int64_t offset(KeySpan keys) const { return keys.first - keys_.first; }
  float* distances_of(const RuleRow& row, KeySpan keys) { return distances_ + row.r * kTileStride + offset(keys); }
  float* grad_masses_of(std::int64_t head) const { return grad_masses_ + head % problem_.group() * kTileKeys; }
  float query_mass(const RuleRow& row) const {
    return mass_at(gravity_.query_mass, row.batch, row.head, row.query_row);
  }
  float factor(const RuleRow& row) const { return gravity_.strength[row.head] * query_mass(row); }

  // For the backward pass: squared distances where there is an exponent, else 1 / (squared distance + eps).
  void keep_distances(const RuleRow& row, KeySpan keys, const float* distances) {
    if (distances_ != nullptr) std::copy_n(distances, keys.size(), distances_of(row, keys));
  }

  GravitySums gradient(const RuleRow& row, KeySpan keys, float* gradients) {
    const float* masses = masses_ + offset(keys);
    const float* distances = distances_of(row, keys);
    float* grad_masses = grad_masses_of(row.head) + offset(keys);
    if (gravity_.exponent == nullptr) {
      return kernels_.gravity_gradient(gradients, distances, masses, keys.size(), factor(row), grad_masses);
    }
    const PowerLaw law{factor(row), gravity_.exponent[row.head], gravity_.eps};
    return kernels_.power_law_gradient(gradients, distances, masses, keys.size(), law, grad_masses);
  }

  // sum = pull * point - sum, of a point that may be anything where nothing pulls it.
  void subtract_from_pull(float pull, const float* point, float* sum) const {
    for (std::int64_t d = 0; d < problem_.query.dim(); ++d) sum[d] = (pull != 0 ? pull * point[d] : 0) - sum[d];
  }

  const ScoreProblem& problem_;
  const Gravity& gravity_;
  const TileKernels& kernels_;
  const RuleGradients* gradients_;
  float* masses_;  // of the keys, for the head loaded last
  KeySpan keys_;
  // Of the backward pass.
  float* distances_ = nullptr;    // [kBlockRows][kTileStride]
  float* grad_masses_ = nullptr;  // [group][kTileKeys]
  float* pulls_ = nullptr;        // per key: sum of w over rows
  float* sums_ = nullptr;
  std::int64_t batch_ = 0;
  std::int64_t kv_head_ = 0;
};

std::string shape_of(std::int64_t batch, std::int64_t heads, std::int64_t length) {
  return "(" + std::to_string(batch) + ", " + std::to_string(heads) + ", " + std::to_string(length) + ")";
}

void check_masses(const Gravity& gravity, const ScoreProblem& problem) {
  const TensorView& query = problem.query;
  const TensorView& key = problem.key;
  const auto came = [](const TensorView& mass) { return shape_of(mass.batch(), mass.heads(), mass.length()); };
  const auto fits = [](const TensorView& mass, std::int64_t b, std::int64_t h, std::int64_t n) {
    return mass.batch() == b && mass.heads() == h && mass.length() == n;
  };
  const TensorView& own = gravity.query_mass;
  if (!fits(own, query.batch(), query.heads(), query.length())) {
    throw std::invalid_argument("query_mass must have shape " + shape_of(query.batch(), query.heads(), query.length()) +
                                ", got " + came(own));
  }
  const TensorView& other = gravity.key_mass;
  if (!fits(other, key.batch(), query.heads(), key.length()) && !fits(other, key.batch(), key.heads(), key.length())) {
    throw std::invalid_argument("key_mass must have shape " + shape_of(key.batch(), query.heads(), key.length()) +
                                " or " + shape_of(key.batch(), key.heads(), key.length()) + ", got " + came(other));
  }
}

}  // namespace

GravityRule::GravityRule(const Gravity& gravity, const ScoreProblem& problem) : gravity_(gravity) {
  check_masses(gravity, problem);
}

std::vector<RuleParameter> GravityRule::parameters(const ScoreProblem& problem) const {
  const TensorView& mass = gravity_.key_mass;
  const std::vector<std::int64_t> rows{problem.query.batch(), problem.query.heads(), problem.query.length()};
  std::vector<RuleParameter> all{
      {"query_mass", rows}, {"key_mass", {mass.batch(), mass.heads(), mass.length()}}, {"gravity", rows}};
  if (gravity_.exponent != nullptr) all.push_back({"exponent", rows});
  return all;
}

std::int64_t GravityRule::floats(const ScoreProblem& problem, std::int64_t rows, bool backward) const {
  return GravityTile::floats(problem, rows, backward);
}

std::unique_ptr<RuleTile> GravityRule::tile(const ScoreProblem& problem, std::int64_t rows,
                                            const RuleGradients* gradients, Scratch& scratch) const {
  return std::make_unique<GravityTile>(problem, gravity_, rows, gradients, scratch);
}

}  // namespace rattention
