// The backward pass of the softmax family against its formulas in float64, with the whole map in memory.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "core/threads.h"
#include "softmax/softmax_attention.h"
#include "softmax/softmax_backward.h"

namespace {

using namespace rattention::test;
using rattention::Masks;
using rattention::ScoreProblem;

// Gradients of every input, as the kernel gives them.
struct Gradients {
  Gradients(const ScoreProblem& problem, const Shape& shape)
      : query(shape.batch, shape.heads, shape.queries, shape.dim),
        key(shape.batch, shape.kv_heads, shape.keys, shape.dim),
        value(shape.batch, shape.kv_heads, shape.keys, shape.value_dim),
        query_mass(shape.batch, shape.heads, shape.queries, 1),
        key_mass(shape.batch, gravity_of(problem) != nullptr ? gravity_of(problem)->key_mass.heads() : 1, shape.keys,
                 1),
        strength(shape.batch, shape.heads, shape.queries, 1),
        exponent(shape.batch, shape.heads, shape.queries, 1),
        log_discount(shape.batch, shape.heads, shape.queries, 1),
        sinks(shape.batch, shape.heads, shape.queries, 1),
        relative_bias(shape.batch, shape.heads, rattention::ceil_div(shape.queries, rattention::kBlockRows),
                      problem.relative_bias ? problem.relative_bias->entries() : 1),
        attn_mask(shape.batch, shape.heads, shape.queries, shape.keys) {}

  rattention::SoftmaxGradients pointers(const ScoreProblem& problem) {
    rattention::SoftmaxGradients all{query.data(), key.data(), value.data()};
    if (gravity_of(problem) != nullptr) {
      all.rule = {query_mass.data(), key_mass.data(), strength.data(), exponent.data()};
    }
    if (problem.log_discount != nullptr) all.log_discount = log_discount.data();
    if (problem.sinks != nullptr) all.sinks = sinks.data();
    if (problem.relative_bias) all.relative_bias = relative_bias.data();
    all.attn_mask = attn_mask.data();
    return all;
  }

  Array query, key, value, query_mass, key_mass, strength, exponent, log_discount, sinks, relative_bias, attn_mask;
};

// The forward pass, and what comes back: gradients of its output and of lse.
struct Saved {
  Saved(const ScoreProblem& problem, const Inputs& inputs, const Shape& shape)
      : output(shape.batch, shape.heads, shape.queries, shape.value_dim),
        lse(static_cast<std::size_t>(shape.batch * shape.heads * shape.queries)),
        grad_output(Array::normal(shape.batch, shape.heads, shape.queries, shape.value_dim, 4)),
        grad_lse(Array::normal(shape.batch, shape.heads, shape.queries, 1, 5)) {
    const rattention::TensorView value = inputs.value.view();
    const rattention::OutputView rows = output.output();
    rattention::SoftmaxForward want;
    want.value = &value;
    want.output = &rows;
    want.lse = lse.data();
    softmax_forward(problem, want);
  }

  Array output;
  std::vector<double> lse;
  Array grad_output, grad_lse;
};

Gradients backward(const ScoreProblem& problem, const Inputs& inputs, const Saved& saved, const Shape& shape) {
  Gradients gradients(problem, shape);
  softmax_backward(problem,
                   {inputs.value.view(), saved.output.view(), saved.grad_output.view(), nullptr, saved.lse.data(),
                    saved.grad_lse.values().data()},
                   gradients.pointers(problem));
  return gradients;
}

// One query head's share of the gradients.
struct HeadGradients {
  Matrix query, key, value, query_mass, key_mass, strength, exponent, log_discount, sinks, relative_bias, attn_mask;
};

Matrix distances_in_time(const ScoreProblem& problem, const Matrix& scores) {
  return Matrix::NullaryExpr(scores.rows(), scores.cols(), [&](Eigen::Index i, Eigen::Index j) {
    return static_cast<double>(std::abs(problem.masks.position(i) - j));
  });
}

// d(G m_i m_j / (|q_i - k_j|^exponent + eps)), pair by pair.
void gravity_gradients(const ScoreProblem& problem, const Inputs& inputs, std::int64_t b, std::int64_t h,
                       const Matrix& grad_scores, HeadGradients* gradients) {
  const rattention::Gravity& gravity = *gravity_of(problem);
  const Matrix query = inputs.query.matrix(b, h).cast<double>();
  const Matrix key = inputs.key.matrix(b, h / problem.group()).cast<double>();
  const auto strength = static_cast<double>(gravity.strength[h]);
  const double exponent = exponent_of(gravity, h);
  for (Eigen::Index i = 0; i < query.rows(); ++i)
    for (Eigen::Index j = 0; j < key.rows(); ++j) {
      const Row apart = query.row(i) - key.row(j);
      const double power = std::pow(apart.norm(), exponent);
      const double near = 1 / (power + static_cast<double>(gravity.eps));
      const double own = mass_of(gravity.query_mass, b, h, i);
      const double other = mass_of(gravity.key_mass, b, gravity.mass_head(h, problem.query.heads()), j);
      const double grad = grad_scores(i, j);
      const double slope = -grad * strength * own * other * near * near;  // of the power
      const double pull = slope * exponent * power / apart.squaredNorm();
      gradients->query.row(i) += pull * apart;
      gradients->key.row(j) -= pull * apart;
      gradients->query_mass(i, 0) += grad * strength * other * near;
      gradients->key_mass(j, 0) += grad * strength * own * near;
      gradients->strength(i, 0) += grad * own * other * near;
      gradients->exponent(i, 0) += slope * power * std::log(apart.norm());
    }
}

Matrix softcap_slopes(const Matrix& products, double cap) {
  if (cap == 0) return Matrix::Ones(products.rows(), products.cols());
  return (1 - (products.array() / cap).tanh().square()).matrix();
}

Matrix bias_gradients(const ScoreProblem& problem, const Matrix& grad_scores) {
  if (!problem.relative_bias) return {};
  const std::int64_t reach = problem.relative_bias->entries() / 2;
  Matrix sums = Matrix::Zero(1, problem.relative_bias->entries());
  for (Eigen::Index i = 0; i < grad_scores.rows(); ++i)
    for (Eigen::Index j = 0; j < grad_scores.cols(); ++j) {
      sums(0, reach + std::clamp<std::int64_t>(j - problem.masks.position(i), -reach, reach)) += grad_scores(i, j);
    }
  return sums;
}

// Of a key whose weight is what is missing from 1 and whose value is 0.
Matrix sink_gradients(const Saved& saved, const Matrix& weights, const Matrix& value, std::int64_t b, std::int64_t h) {
  const Eigen::VectorXd missing = 1 - weights.rowwise().sum().array();
  const Eigen::VectorXd means =
      (weights * value).cwiseProduct(saved.grad_output.matrix(b, h).cast<double>()).rowwise().sum();
  const Eigen::VectorXd grad_lse = saved.grad_lse.matrix(b, h).cast<double>();
  return missing.cwiseProduct(grad_lse - means);
}

HeadGradients reference(const ScoreProblem& problem, const Inputs& inputs, const Saved& saved, std::int64_t b,
                        std::int64_t h) {
  const Matrix query = inputs.query.matrix(b, h).cast<double>();
  const Matrix key = inputs.key.matrix(b, h / problem.group()).cast<double>();
  const Matrix value = inputs.value.matrix(b, h / problem.group()).cast<double>();
  const Matrix grad_output = saved.grad_output.matrix(b, h).cast<double>();
  const Matrix weights = softmax_of_rows(reference_scores(problem, inputs, b, h), sink_of(problem, h));
  const Eigen::VectorXd grad_lse = saved.grad_lse.matrix(b, h).cast<double>();
  const Matrix grad_scores =
      softmax_backward_of_rows(weights, grad_output * value.transpose()) + grad_lse.asDiagonal() * weights;
  HeadGradients gradients{Matrix::Zero(query.rows(), query.cols()),
                          Matrix::Zero(key.rows(), key.cols()),
                          weights.transpose() * grad_output,
                          Matrix::Zero(query.rows(), 1),
                          Matrix::Zero(key.rows(), 1),
                          Matrix::Zero(query.rows(), 1),
                          Matrix::Zero(query.rows(), 1),
                          grad_scores.cwiseProduct(distances_in_time(problem, weights)).rowwise().sum(),
                          sink_gradients(saved, weights, value, b, h),
                          bias_gradients(problem, grad_scores),
                          grad_scores};
  if (gravity_of(problem) != nullptr) {
    gravity_gradients(problem, inputs, b, h, grad_scores, &gradients);
  } else {
    const Matrix products = static_cast<double>(problem.scale) * (query * key.transpose());
    const Matrix grad_products = grad_scores.cwiseProduct(softcap_slopes(products, softcap_of(problem)));
    gradients.query = static_cast<double>(problem.scale) * (grad_products * key);
    gradients.key = static_cast<double>(problem.scale) * (grad_products.transpose() * query);
  }
  return gradients;
}

// Sums over the query heads that share an array.
class Shared {
 public:
  void add(const Matrix& part) { sum_ = sum_.size() == 0 ? part : sum_ + part; }
  Matrix take() { return std::exchange(sum_, Matrix()); }

 private:
  Matrix sum_;
};

void compare_masses(const Gradients& got, const HeadGradients& head, Shared* key_mass, const ScoreProblem& problem,
                    std::int64_t b, std::int64_t h) {
  CHECK_NEAR(got.query_mass.matrix(b, h), head.query_mass, 1e-5);
  CHECK_NEAR(got.strength.matrix(b, h), head.strength, 1e-5);
  if (gravity_of(problem)->exponent != nullptr) CHECK_NEAR(got.exponent.matrix(b, h), head.exponent, 1e-5);
  key_mass->add(head.key_mass);
  const std::int64_t mass_head = gravity_of(problem)->mass_head(h, problem.query.heads());
  const bool last =
      h + 1 == problem.query.heads() || gravity_of(problem)->mass_head(h + 1, problem.query.heads()) != mass_head;
  if (last) CHECK_NEAR(got.key_mass.matrix(b, mass_head), key_mass->take(), 1e-5);
}

void compare(const ScoreProblem& problem, const Inputs& inputs, const Shape& shape) {
  const Saved saved(problem, inputs, shape);
  const Gradients got = backward(problem, inputs, saved, shape);
  Shared key, value, key_mass;
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const HeadGradients head = reference(problem, inputs, saved, b, h);
      CHECK_NEAR(got.query.matrix(b, h), head.query, 1e-5);
      if (gravity_of(problem) != nullptr) compare_masses(got, head, &key_mass, problem, b, h);
      if (problem.log_discount != nullptr) CHECK_NEAR(got.log_discount.matrix(b, h), head.log_discount, 1e-5);
      if (problem.sinks != nullptr) CHECK_NEAR(got.sinks.matrix(b, h), head.sinks, 1e-5);
      if (problem.relative_bias) {
        CHECK_NEAR(Matrix(got.relative_bias.matrix(b, h).cast<double>().colwise().sum()), head.relative_bias, 1e-5);
      }
      CHECK_NEAR(got.attn_mask.matrix(b, h), head.attn_mask, 1e-5);
      key.add(head.key);
      value.add(head.value);
      if ((h + 1) % problem.group() != 0) continue;
      CHECK_NEAR(got.key.matrix(b, h / problem.group()), key.take(), 1e-5);
      CHECK_NEAR(got.value.matrix(b, h / problem.group()), value.take(), 1e-5);
    }
}

void compare(const Shape& shape, const Masks& masks) {
  const Inputs inputs(shape);
  compare(problem_of(inputs, masks), inputs, shape);
}

// Around tiles of 512 keys and blocks of 48 rows, and in the last ones with several parts to a key/value head.
const Shape kShapes[] = {{1, 1, 1, 1, 1, 1, 1},     {2, 4, 2, 47, 49, 8, 5},    {1, 3, 1, 49, 257, 33, 40},
                         {1, 1, 1, 60, 20, 16, 16}, {1, 4, 1, 600, 513, 17, 8}, {1, 1, 1, 2000, 300, 4, 4}};

void full_causal_and_windowed() {
  for (const Shape& shape : kShapes) {
    compare(shape, reach(Masks::kUnlimited, Masks::kUnlimited));
    compare(shape, reach(Masks::kUnlimited, 0));
    compare(shape, reach(0, 0));
    compare(shape, reach(31, 0));
    compare(shape, reach(100, 60));
  }
}

void padding() {
  const Shape shape{2, 2, 1, 70, 530, 32, 32};
  const Padding padded(shape);
  Masks masks = reach(200, 0);
  masks.padding = padded.mask();
  compare(shape, masks);
}

void gravity_and_discounts() {
  const std::vector<float> discounts = {-0.5F, 0.0F, -0.01F, -3.0F};
  const std::vector<float> exponents = {1.0F, 2.0F, 0.8F, 3.3F};
  for (const Shape& shape : {Shape{1, 1, 1, 1, 1, 1, 1}, Shape{2, 4, 2, 50, 50, 3, 8}, Shape{1, 4, 1, 260, 270, 9, 7}})
    for (const std::int64_t mass_heads : {shape.heads, shape.kv_heads})
      for (const bool discounted : {false, true}) {
        const Inputs inputs(shape);
        const Bodies bodies(shape, mass_heads);
        ScoreProblem problem = problem_of(inputs, reach(60, discounted ? 20 : 0));
        if (discounted) problem.log_discount = discounts.data();
        compare(problem, inputs, shape);
        bodies.pull(&problem);
        compare(problem, inputs, shape);
        bodies.pull(&problem, exponents.data());
        compare(problem, inputs, shape);
      }
}

void a_discount_for_every_query() {
  const Shape shape{2, 4, 2, 60, 90, 8, 8};
  const Inputs inputs(shape);
  const Array slopes = Array::positive(2, 4, 60, 1, 21);
  std::vector<float> discounts = slopes.values();
  for (float& discount : discounts) discount *= -0.1F;
  ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 30));
  problem.log_discount = discounts.data();
  problem.discount_per_query = true;
  compare(problem, inputs, shape);
}

void softcap_bias_and_sinks() {
  const std::vector<float> discounts = {-0.5F, 0.0F, -0.01F, -3.0F};
  for (const std::int64_t length : {0, 3, 128, 700}) {
    const Shape shape{2, 4, 2, 130, 530, 16, 16};
    const Inputs inputs(shape);
    const HeadTerms terms(shape, length);
    ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 0));
    problem.sinks = terms.sinks.values().data();
    compare(problem, inputs, shape);
    problem.relative_bias = terms.table;
    compare(problem, inputs, shape);
    problem.rule = std::make_shared<rattention::SoftcapRule>(1.5F);
    problem.log_discount = discounts.data();
    compare(problem, inputs, shape);
  }
}

// Parts of 40 blocks see other keys in each sequence of the batch.
void packed_sequences_and_blocks_that_see_both_sides() {
  const Shape shape{2, 1, 1, 2100, 2100, 8, 8};
  for (const std::int64_t length : {47, 1000}) {
    Masks masks = reach(30, 0);
    masks.key_length = shape.keys;
    masks.blocks = runs(shape, length, false);
    masks.within = runs(shape, 2 * length, true);
    compare(shape, masks);
  }
}

void results_do_not_depend_on_threads() {
  const Shape shape{1, 4, 1, 700, 700, 16, 16};
  const Inputs inputs(shape);
  const ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 0));
  const Saved saved(problem, inputs, shape);
  rattention::set_num_threads(1);
  const Gradients alone = backward(problem, inputs, saved, shape);
  for (const int threads : {2, 3, 8}) {
    rattention::set_num_threads(threads);
    const Gradients together = backward(problem, inputs, saved, shape);
    CHECK(together.query.values() == alone.query.values());
    CHECK(together.key.values() == alone.key.values());
    CHECK(together.value.values() == alone.value.values());
  }
  rattention::set_num_threads(0);
}

}  // namespace

int main() {
  return rattention::test::run({
      {"full, causal and windowed", full_causal_and_windowed},
      {"padding", padding},
      {"gravity and discounts", gravity_and_discounts},
      {"a discount for every query", a_discount_for_every_query},
      {"softcap, bias and sinks", softcap_bias_and_sinks},
      {"packed sequences and blocks that see both sides", packed_sequences_and_blocks_that_see_both_sides},
      {"results do not depend on threads", results_do_not_depend_on_threads},
  });
}
