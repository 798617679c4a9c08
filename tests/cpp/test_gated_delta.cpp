// The gated delta rule, with and without its correction, against its recurrence in float64: rows, states, steps, and
// gradients as directional derivatives.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "linear/delta_rule.h"

namespace {

using namespace rattention::test;
using rattention::DeltaProblem;

struct DeltaShape {
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;
  bool channels;
  bool corrects = true;  // else gates and states are those of key/value heads

  std::int64_t own_heads() const { return corrects ? heads : kv_heads; }
  Shape shape() const { return {batch, heads, kv_heads, length, length, dim, value_dim}; }
  std::int64_t gates() const { return channels ? dim : 1; }
};

using Values = std::map<std::string, std::vector<double>>;

// Random inputs with gates from e^-3 to 1, and betas from 0 to 2.
struct DeltaInputs {
  explicit DeltaInputs(const DeltaShape& shape)
      : rows(shape.shape()),
        log_gate(Array::positive(shape.batch, shape.own_heads(), shape.length, shape.gates(), 7)),
        beta(Array::positive(shape.batch, shape.heads, shape.length, 1, 8)),
        state(Array::normal(shape.batch, shape.own_heads(), shape.dim, shape.value_dim, 9)) {
    for (std::int64_t i = 0; i < size(log_gate); ++i) log_gate.data()[i] = -std::min(3.0F, 0.3F * log_gate.data()[i]);
    for (std::int64_t i = 0; i < size(beta); ++i) beta.data()[i] = std::min(2.0F, beta.data()[i]);
  }
  static std::int64_t size(const Array& array) { return static_cast<std::int64_t>(array.values().size()); }

  DeltaProblem problem(const DeltaShape& shape) const {
    DeltaProblem problem;
    problem.query = rows.query.view();
    problem.key = rows.key.view();
    problem.value = rows.value.view();
    problem.log_gate = log_gate.values().data();
    problem.per_channel = shape.channels;
    problem.gate_heads = problem.state_heads = shape.own_heads();
    if (shape.corrects) problem.beta = beta.values().data();
    problem.scale = 0.3F;
    problem.normalize = shape.corrects;
    problem.initial_state = state.values().data();
    return problem;
  }
  Values values() const {
    Values values;
    const auto add = [&](const char* name, const Array& array) {
      values[name].assign(array.values().begin(), array.values().end());
    };
    add("query", rows.query);
    add("key", rows.key);
    add("value", rows.value);
    add("log_gate", log_gate);
    add("beta", beta);
    add("initial_state", state);
    return values;
  }

  Inputs rows;
  Array log_gate, beta, state;
};

Matrix matrix(const std::vector<double>& values, std::int64_t index, std::int64_t rows, std::int64_t columns) {
  return Eigen::Map<const Matrix>(values.data() + index * rows * columns, rows, columns);
}

Row unit(const Row& x, bool normalize) { return normalize ? Row(x / std::sqrt(x.squaredNorm() + 1e-6)) : x; }

struct Rows {
  Matrix output, state;
};

// One head, token by token.
Rows recurrence(const Values& values, const DeltaShape& shape, std::int64_t b, std::int64_t h) {
  const std::int64_t head = b * shape.heads + h;
  const std::int64_t kv_head = b * shape.kv_heads + h * shape.kv_heads / shape.heads;
  const std::int64_t own = b * shape.own_heads() + h * shape.own_heads() / shape.heads;
  const Matrix query = matrix(values.at("query"), head, shape.length, shape.dim);
  const Matrix key = matrix(values.at("key"), kv_head, shape.length, shape.dim);
  const Matrix value = matrix(values.at("value"), kv_head, shape.length, shape.value_dim);
  const Matrix gates = matrix(values.at("log_gate"), own, shape.length, shape.gates()).array().exp();
  const Matrix beta = matrix(values.at("beta"), head, shape.length, 1);
  Rows rows{Matrix(shape.length, shape.value_dim), matrix(values.at("initial_state"), own, shape.dim, shape.value_dim)};
  for (Eigen::Index t = 0; t < shape.length; ++t) {
    const Row decay = Row::NullaryExpr(shape.dim, [&](Eigen::Index c) { return gates(t, shape.channels ? c : 0); });
    const Row k = unit(key.row(t), shape.corrects);
    const Matrix decayed = decay.asDiagonal() * rows.state;
    const Row update = shape.corrects ? Row(beta(t, 0) * (value.row(t) - k * decayed)) : Row(value.row(t));
    rows.state = decayed + k.transpose() * update;
    rows.output.row(t) = 0.3 * unit(query.row(t), shape.corrects) * rows.state;
  }
  return rows;
}

const DeltaShape kShapes[] = {{1, 1, 1, 1, 1, 1, false},         {2, 4, 2, 47, 8, 5, false},
                              {1, 2, 1, 49, 33, 40, true},       {1, 4, 1, 97, 7, 17, true},
                              {1, 2, 2, 150, 5, 9, false},       {2, 4, 2, 103, 7, 17, true, false},
                              {1, 2, 2, 49, 16, 16, true, false}};

void forward() {
  for (const DeltaShape& shape : kShapes) {
    const DeltaInputs inputs(shape);
    Array output(shape.batch, shape.heads, shape.length, shape.value_dim);
    Array state(shape.batch, shape.own_heads(), shape.dim, shape.value_dim);
    const rattention::OutputView rows = output.output();
    rattention::delta_forward(inputs.problem(shape), {&rows, state.data(), nullptr});
    for (std::int64_t b = 0; b < shape.batch; ++b)
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const Rows want = recurrence(inputs.values(), shape, b, h);
        CHECK_NEAR(output.matrix(b, h), want.output, 1e-5);
        CHECK_NEAR(state.matrix(b, h * shape.own_heads() / shape.heads), want.state, 1e-5);
      }
  }
}

// In place, one token after the other.
void steps() {
  for (const DeltaShape& shape : kShapes) {
    if (shape.own_heads() != shape.heads) continue;  // in place every head has a state of its own
    const DeltaInputs inputs(shape);
    const DeltaProblem whole = inputs.problem(shape);
    Array state = inputs.state;
    for (std::int64_t t = 0; t < shape.length; ++t) {
      DeltaProblem token = whole;
      token.query = whole.query.rows(t, t + 1);
      token.key = whole.key.rows(t, t + 1);
      token.value = whole.value.rows(t, t + 1);
      std::vector<float> gates, betas;
      for (std::int64_t head = 0; head < shape.batch * shape.heads; ++head) {
        const float* at = whole.log_gate + (head * shape.length + t) * shape.gates();
        gates.insert(gates.end(), at, at + shape.gates());
        if (shape.corrects) betas.push_back(whole.beta[head * shape.length + t]);
      }
      token.log_gate = gates.data();
      token.beta = shape.corrects ? betas.data() : nullptr;
      token.initial_state = state.data();
      rattention::delta_forward(token, {nullptr, state.data(), nullptr});
    }
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      CHECK_NEAR(state.matrix(0, h), recurrence(inputs.values(), shape, 0, h).state, 1e-5);
    }
  }
}

// sum(output * grad_output) + sum(state * grad_state)
double objective(const Values& values, const DeltaShape& shape, const Array& grad_output, const Array& grad_state) {
  double sum = 0;
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const Rows rows = recurrence(values, shape, b, h);
      sum += rows.output.cwiseProduct(grad_output.matrix(b, h).cast<double>()).sum();
      if (h % (shape.heads / shape.own_heads()) != 0) continue;  // the first of those that share a state
      const Matrix grad = grad_state.matrix(b, h * shape.own_heads() / shape.heads).cast<double>();
      sum += rows.state.cwiseProduct(grad).sum();
    }
  return sum;
}

void gradients() {
  for (const DeltaShape& shape : kShapes) {
    const DeltaInputs inputs(shape);
    const Array grad_output = Array::normal(shape.batch, shape.heads, shape.length, shape.value_dim, 4);
    const Array grad_state = Array::normal(shape.batch, shape.own_heads(), shape.dim, shape.value_dim, 5);
    const Values values = inputs.values();
    std::map<std::string, std::vector<float>> got;
    for (const auto& [name, array] : values) got[name].resize(array.size());
    const rattention::DeltaGradients out{got["query"].data(),    got["key"].data(),  got["value"].data(),
                                         got["log_gate"].data(), got["beta"].data(), got["initial_state"].data()};
    rattention::delta_backward(inputs.problem(shape), {grad_output.view(), grad_state.values().data(), nullptr}, out);
    for (const auto& [name, array] : values) {
      if (name == "beta" && !shape.corrects) continue;
      const auto direction = Array::normal(1, 1, 1, static_cast<std::int64_t>(array.size()), 6).values();
      Values moved[2] = {values, values};
      double along = 0, scale = 1;
      for (std::size_t i = 0; i < array.size(); ++i) {
        moved[0][name][i] -= 1e-5 * static_cast<double>(direction[i]);
        moved[1][name][i] += 1e-5 * static_cast<double>(direction[i]);
        along += static_cast<double>(direction[i] * got[name][i]);
        scale += std::fabs(static_cast<double>(direction[i] * got[name][i]));
      }
      const double want =
          (objective(moved[1], shape, grad_output, grad_state) - objective(moved[0], shape, grad_output, grad_state)) /
          2e-5;
      CHECK_CLOSE(along, want, 1e-5 * scale);
    }
  }
}

}  // namespace

int main() { return rattention::test::run({{"forward", forward}, {"steps", steps}, {"gradients", gradients}}); }
