// Residual linear attention, forward and backward, against its quadratic form in float64.
#include <algorithm>
#include <vector>

#include "check.h"
#include "core/threads.h"
#include "linear/residual_linear.h"
#include "linear/residual_linear_backward.h"
#include "linear_problem.h"

namespace {

using namespace rattention::test;
using rattention::FeatureMap;
using rattention::LinearProblem;

struct Forward {
  Forward(const LinearProblem& problem, const LinearShape& shape)
      : output(shape.batch, shape.heads, shape.length, shape.value_dim),
        final_state(shape.batch, problem.final_heads(), 2 * shape.dim, shape.value_dim) {
    const rattention::OutputView rows = output.output();
    rattention::LinearForward want;
    want.output = &rows;
    want.final_state = final_state.data();
    linear_forward(problem, rattention::ScanPlan(problem), want);
  }

  Array output, final_state;
};

struct Backward {
  Backward(const LinearProblem& problem, const LinearShape& shape)
      : grad_output(Array::normal(shape.batch, shape.heads, shape.length, shape.value_dim, 4)),
        grad_state(Array::normal(shape.batch, problem.final_heads(), 2 * shape.dim, shape.value_dim, 5)),
        query(shape.batch, shape.heads, shape.length, shape.dim),
        key(shape.batch, shape.kv_heads, shape.length, shape.dim),
        value(shape.batch, shape.kv_heads, shape.length, shape.value_dim),
        initial_state(shape.batch, problem.final_heads(), 2 * shape.dim, shape.value_dim) {
    rattention::LinearGradients gradients{query.data(), key.data(), value.data(), nullptr};
    if (problem.initial_state != nullptr) gradients.initial_state = initial_state.data();
    linear_backward(problem, rattention::ScanPlan(problem), {grad_output.view(), grad_state.values().data(), nullptr},
                    gradients);
  }

  Array grad_output, grad_state, query, key, value, initial_state;
};

void compare_forward(const LinearProblem& problem, const Inputs& inputs, const LinearShape& shape) {
  const Forward got(problem, shape);
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const LinearHead head(problem, inputs, b, h);
      CHECK_NEAR(got.output.matrix(b, h), head.rows(), 1e-5);
      CHECK_NEAR(got.final_state.matrix(b, h * problem.final_heads() / shape.heads), head.final_state(), 1e-5);
    }
}

LinearHead::Gradients sum(const LinearHead::Gradients& a, const LinearHead::Gradients& b) {
  return {a.query + b.query, a.key + b.key, a.value + b.value, a.initial_state + b.initial_state};
}

// The heads of one key/value head.
void compare_group(const LinearProblem& problem, const Inputs& inputs, const Backward& got, std::int64_t b,
                   std::int64_t kv_head) {
  const std::int64_t states = problem.final_heads() / problem.key.heads();  // per key/value head
  LinearHead::Gradients shared;
  for (std::int64_t g = 0; g < problem.group(); ++g) {
    const std::int64_t h = kv_head * problem.group() + g;
    const LinearHead head(problem, inputs, b, h);
    LinearHead::Gradients own = head.gradients(got.grad_output.matrix(b, h).cast<double>());
    CHECK_NEAR(got.query.matrix(b, h), own.query, 1e-5);
    if (g < states) {
      const Matrix grad_state = got.grad_state.matrix(b, kv_head * states + g).cast<double>();
      own = sum(own, head.gradients_of_state(grad_state));
    }
    if (problem.state_per_query_head()) CHECK_NEAR(got.initial_state.matrix(b, h), own.initial_state, 1e-5);
    shared = g == 0 ? own : sum(shared, own);
  }
  CHECK_NEAR(got.key.matrix(b, kv_head), shared.key, 1e-5);
  CHECK_NEAR(got.value.matrix(b, kv_head), shared.value, 1e-5);
  if (problem.initial_state != nullptr && !problem.state_per_query_head()) {
    CHECK_NEAR(got.initial_state.matrix(b, kv_head), shared.initial_state, 1e-5);
  }
}

void compare(const LinearProblem& problem, const Inputs& inputs, const LinearShape& shape) {
  compare_forward(problem, inputs, shape);
  const Backward got(problem, shape);
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      compare_group(problem, inputs, got, b, kv_head);
    }
}

// Around chunks of 48 tokens and stretches of 384, with odd head dimensions and grouped heads.
const LinearShape kShapes[] = {
    {1, 1, 1, 1, 1, 1}, {2, 4, 2, 47, 8, 5}, {1, 2, 1, 49, 33, 40}, {1, 8, 1, 130, 7, 17}, {1, 2, 2, 400, 5, 9}};

void windows_and_feature_maps() {
  for (const LinearShape& shape : kShapes)
    for (const FeatureMap map : {FeatureMap::softmax, FeatureMap::relu})
      for (const std::int64_t window :
           {std::int64_t{-1}, std::int64_t{0}, std::int64_t{5}, std::int64_t{47}, shape.length - 1, shape.length}) {
        const Inputs inputs(shape.shape());
        compare(linear_problem_of(inputs, std::min(window, shape.length), map), inputs, shape);
      }
}

void initial_states() {
  for (const LinearShape& shape : kShapes)
    for (const std::int64_t heads : {shape.kv_heads, shape.heads})
      for (const std::int64_t window : {std::int64_t{-1}, std::int64_t{0}, shape.length}) {
        const Inputs inputs(shape.shape());
        const Array state = initial_state(shape, heads);
        LinearProblem problem = linear_problem_of(inputs, window, FeatureMap::softmax);
        problem.initial_state = state.values().data();
        problem.state_heads = heads;
        compare(problem, inputs, shape);
      }
}

void padding() {
  for (const LinearShape& shape : {LinearShape{2, 4, 2, 130, 8, 12}, LinearShape{1, 2, 1, 500, 9, 4}}) {
    const Inputs inputs(shape.shape());
    const Padding padded(shape.shape());
    LinearProblem problem = linear_problem_of(inputs, 20, FeatureMap::softmax);
    problem.padding = padded.mask();
    compare(problem, inputs, shape);
  }
}

// The plan keeps states where keys of the same sequence came before, and nothing for many short sequences; what the
// forward pass writes there is what the backward pass would sum again.
void states_that_are_kept() {
  const LinearShape shape{2, 4, 2, 1500, 8, 5};
  const Inputs inputs(shape.shape());
  std::vector<std::int64_t> ids(static_cast<std::size_t>(2 * shape.length));
  LinearProblem problem = linear_problem_of(inputs, 3, FeatureMap::softmax);
  problem.segments = ids.data();
  CHECK(rattention::ScanPlan(problem).saved_states() > 0);
  const Array grad = Array::normal(shape.batch, shape.heads, shape.length, shape.value_dim, 4);
  for (const std::int64_t length : {std::int64_t{2}, std::int64_t{700}}) {
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i) % shape.length / length;
    const rattention::ScanPlan plan(problem);
    CHECK((plan.saved_states() == 0) == (length == 2));
    CHECK(plan.pieces() <= 2 * (2 * shape.length / 192 + 2 * 2));
    std::vector<float> states(static_cast<std::size_t>(plan.saved_states() * problem.state_size()));
    Array output(shape.batch, shape.heads, shape.length, shape.value_dim);
    const rattention::OutputView rows = output.output();
    rattention::LinearForward want;
    want.output = &rows;
    want.states = states.data();
    std::vector<std::vector<float>> results;
    for (const bool saved : {true, false})
      for (const int threads : {1, 3, 32}) {
        rattention::set_num_threads(threads);
        std::fill(states.begin(), states.end(), -1.0F);
        linear_forward(problem, plan, want);
        Array query(shape.batch, shape.heads, shape.length, shape.dim);
        Array key(shape.batch, shape.kv_heads, shape.length, shape.dim);
        Array value(shape.batch, shape.kv_heads, shape.length, shape.value_dim);
        linear_backward(problem, plan, {grad.view(), nullptr, saved ? states.data() : nullptr},
                        {query.data(), key.data(), value.data(), nullptr});
        results.push_back(output.values());
        for (const Array* more : {&query, &key, &value}) {
          results.back().insert(results.back().end(), more->values().begin(), more->values().end());
        }
        CHECK(results.back() == results.front());
      }
    rattention::set_num_threads(0);
  }
}

void results_do_not_depend_on_threads() {
  const LinearShape shape{1, 2, 1, 1500, 16, 16};
  const Inputs inputs(shape.shape());
  const LinearProblem problem = linear_problem_of(inputs, 31, FeatureMap::softmax);
  rattention::set_num_threads(1);
  const Forward alone(problem, shape);
  const Backward alone_back(problem, shape);
  for (const int threads : {2, 3, 8}) {
    rattention::set_num_threads(threads);
    const Forward together(problem, shape);
    CHECK(together.output.values() == alone.output.values());
    CHECK(together.final_state.values() == alone.final_state.values());
    const Backward together_back(problem, shape);
    CHECK(together_back.query.values() == alone_back.query.values());
    CHECK(together_back.key.values() == alone_back.key.values());
    CHECK(together_back.value.values() == alone_back.value.values());
  }
  rattention::set_num_threads(0);
}

}  // namespace

int main() {
  return rattention::test::run({
      {"windows and feature maps", windows_and_feature_maps},
      {"initial states", initial_states},
      {"padding", padding},
      {"states that are kept", states_that_are_kept},
      {"results do not depend on threads", results_do_not_depend_on_threads},
  });
}
