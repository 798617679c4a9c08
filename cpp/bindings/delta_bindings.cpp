// The gated delta rule, and gated linear attention with a gate per channel: the same without its correction.
#include <pybind11/stl.h>

#include <cmath>
#include <optional>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/exchanged_tensors.h"
#include "bindings/kept_words.h"
#include "bindings/module.h"
#include "linear/delta_rule.h"
#include "softmax/checks.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

using Shape = std::vector<std::int64_t>;

// Holds the arrays that a problem points into.
struct DeltaOptions {
  FloatArray log_gate;
  std::optional<FloatArray> beta;
  float scale;
  bool normalize;
  std::optional<FloatArray> initial_state;
  std::optional<py::array> key_mask;
  std::optional<py::array> segment_ids;
  const char* state_name = "initial_state";
};

std::array<std::int64_t, 4> output_shape(const DeltaProblem& problem) {
  return {problem.query.batch(), problem.query.heads(), problem.query.length(), problem.value.dim()};
}

Shape state_shape(const DeltaProblem& problem) {
  return {problem.query.batch(), problem.state_heads, problem.key.dim(), problem.value.dim()};
}

// With betas every query head has gates and a state of its own; without, they are those of key/value heads, but for an
// initial state that has more.
void set_heads(DeltaProblem& problem, const DeltaOptions& options) {
  const std::int64_t heads = problem.query.heads();
  problem.gate_heads = problem.state_heads = options.beta ? heads : problem.key.heads();
  require(heads > 0 || problem.gate_heads == 0, "query has 0 heads, key has " + std::to_string(problem.gate_heads));
  const auto& start = options.initial_state;
  if (start && start->ndim() == 4 && start->shape(1) == heads) problem.state_heads = heads;
}

DeltaProblem make_problem(const py::array& query, const py::array& key, const py::array& value,
                          const DeltaOptions& options) {
  DeltaProblem problem;
  problem.query = tensor_view("query", query);
  problem.key = tensor_view("key", key);
  problem.value = tensor_view("value", value);
  check_query_and_key(problem.query, problem.key);
  check_value(problem.key, problem.value);
  const std::int64_t length = problem.query.length();
  const std::int64_t batch = problem.query.batch();
  check_equal_lengths(problem.query, problem.key);
  set_heads(problem, options);
  problem.per_channel = options.log_gate.ndim() == 4;
  Shape gates{batch, problem.gate_heads, length};
  if (problem.per_channel) gates.push_back(problem.key.dim());
  require_shape("log_gate", options.log_gate, gates);
  problem.log_gate = options.log_gate.data();
  if (options.beta) {
    require_shape("beta", *options.beta, {batch, problem.query.heads(), length});
    problem.beta = options.beta->data();
  }
  problem.scale = options.scale;
  problem.normalize = options.normalize;
  if (options.initial_state) {
    require_shape(options.state_name, *options.initial_state, state_shape(problem));
    problem.initial_state = options.initial_state->data();
  }
  if (options.key_mask) problem.padding = padding_mask(*options.key_mask, batch, length);
  require_log_gate("log_gate", options.log_gate, problem.padding);
  if (options.segment_ids) problem.segments = key_ids("segment_ids", *options.segment_ids, batch, length);
  return problem;
}

py::tuple gated_delta_rule(const py::array& query, const py::array& key, const py::array& value,
                           const DeltaOptions& options, bool return_state, bool keep) {
  const DeltaProblem problem = make_problem(query, key, value, options);
  OutputView view;
  py::array output = new_output(problem.query.dtype, output_shape(problem), &view);
  DeltaForward want;
  want.output = &view;
  py::object state = py::none();
  py::object kept = py::none();
  if (return_state) {
    py::array_t<float> array = new_array<float>(state_shape(problem));
    want.final_state = array.mutable_data();
    state = array;
  }
  if (keep) {
    Words words = new_words(delta_saved_floats(problem));
    want.states = floats_of(words);
    kept = words;
  }
  {
    const CoreCall call;
    delta_forward(problem, want);
  }
  return py::make_tuple(output, state, kept);
}

// The state goes on in place; it must not be left between two tokens, so Ctrl-C waits.
py::array gated_delta_step(const py::array& query, const py::array& key, const py::array& value,
                           const FloatArray& log_gate, const std::optional<FloatArray>& beta, FloatArray state,
                           float scale, bool normalize, const std::optional<py::array>& key_mask) {
  DeltaProblem problem =
      make_problem(query, key, value, {log_gate, beta, scale, normalize, state, key_mask, std::nullopt, "cache.state"});
  OutputView view;
  py::array output = new_output(problem.query.dtype, output_shape(problem), &view);
  DeltaForward want;
  want.output = &view;
  want.final_state = state.mutable_data();
  std::vector<float> before;  // of heads that share a state: none may find it changed
  if (problem.state_heads < problem.query.heads()) {
    before.assign(state.data(), state.data() + state.size());
    problem.initial_state = before.data();
  }
  {
    const CoreCall call;
    const Interrupts none(nullptr);
    delta_forward(problem, want);
  }
  return output;
}

py::array gated_delta_step_of_tensors(const py::capsule& exchange, const py::handle& query, const py::handle& key,
                                      const py::handle& value, const py::handle& log_gate, const py::handle& beta,
                                      const FloatArray& state, std::optional<float> scale, bool normalize) {
  const ExchangeTable table(exchange);
  const auto floats = [&](const py::handle& tensor) {
    py::array array = table.array(tensor);
    require(py::isinstance<FloatArray>(array), "gates and betas must be contiguous float32");
    return FloatArray(array);
  };
  const py::array queries = table.array(query);
  const py::array keys = table.array(key);
  const py::array values = table.array(value);
  require(queries.dtype().is(keys.dtype()) && keys.dtype().is(values.dtype()), "all inputs must have the same dtype");
  const float usual = 1.0F / std::sqrt(static_cast<float>(queries.shape(queries.ndim() - 1)));
  std::optional<FloatArray> betas;
  if (!beta.is_none()) betas = floats(beta);
  return gated_delta_step(queries, keys, values, floats(log_gate), betas, state, scale.value_or(usual), normalize, {});
}

py::dict gated_delta_rule_backward(const py::array& query, const py::array& key, const py::array& value,
                                   const DeltaOptions& options, const py::array& grad_output,
                                   const std::optional<FloatArray>& grad_state, std::optional<Words> kept) {
  const DeltaProblem problem = make_problem(query, key, value, options);
  const auto shape = output_shape(problem);
  require_shape("grad_output", grad_output, {shape.begin(), shape.end()});
  DeltaSaved saved{tensor_view("grad_output", grad_output)};
  if (grad_state) {
    require_shape("grad_state", *grad_state, state_shape(problem));
    saved.grad_state = grad_state->data();
  }
  if (kept) saved.states = kept_by_forward(*kept, delta_saved_floats(problem));
  py::dict names;
  const auto gradient = [&](const char* name, const Shape& of) {
    py::array_t<float> array = zero_pages(of);
    names[name] = array;
    return array.mutable_data();
  };
  const auto like = [](const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); };
  DeltaGradients gradients;
  gradients.query = gradient("query", like(query));
  gradients.key = gradient("key", like(key));
  gradients.value = gradient("value", like(value));
  gradients.log_gate = gradient("log_gate", like(options.log_gate));
  if (options.beta) gradients.beta = gradient("beta", like(*options.beta));
  if (options.initial_state) gradients.initial_state = gradient("initial_state", state_shape(problem));
  {
    const CoreCall call;
    delta_backward(problem, saved, gradients);
  }
  return names;
}

}  // namespace

void bind_delta(py::module_& module) {
  const py::object none = py::none();
  py::class_<DeltaOptions>(module, "DeltaOptions",
                           "Options of the gated delta rule, without betas of gated linear attention; arrays are "
                           "checked where they meet query and key.")
      .def(py::init([](FloatArray log_gate, std::optional<FloatArray> beta, float scale, bool normalize,
                       std::optional<FloatArray> initial_state, std::optional<py::array> key_mask,
                       std::optional<py::array> segment_ids) {
             if (segment_ids) segment_ids = own_integers(*segment_ids);
             return DeltaOptions{std::move(log_gate), std::move(beta),       scale, normalize, std::move(initial_state),
                                 std::move(key_mask), std::move(segment_ids)};
           }),
           py::kw_only(), py::arg("log_gate").noconvert(), py::arg("beta").noconvert() = none, py::arg("scale"),
           py::arg("normalize") = false, py::arg("initial_state").noconvert() = none, py::arg("key_mask") = none,
           py::arg("segment_ids") = none);
  module.def("gated_delta_rule", &gated_delta_rule, py::arg("query"), py::arg("key"), py::arg("value"),
             py::arg("options"), py::arg("return_state") = false, py::arg("keep") = false,
             "(output, final state or None, what the backward pass takes as `kept` or None)");
  module.def("gated_delta_step", &gated_delta_step, py::arg("query"), py::arg("key"), py::arg("value"),
             py::arg("log_gate").noconvert(), py::arg("beta").noconvert(), py::arg("state").noconvert(),
             py::arg("scale"), py::arg("normalize"), py::arg("key_mask"),
             "The output; the state, [batch, heads, head_dim, value_dim], goes on in place.");
  module.def("gated_delta_step_of_tensors", &gated_delta_step_of_tensors, py::arg("exchange"), py::arg("query"),
             py::arg("key"), py::arg("value"), py::arg("log_gate"), py::arg("beta"), py::arg("state").noconvert(),
             py::arg("scale"), py::arg("normalize"),
             "The same for tensors of a library, by the exchange protocol of DLPack");
  module.def("gated_delta_rule_backward", &gated_delta_rule_backward, py::arg("query"), py::arg("key"),
             py::arg("value"), py::arg("options"), py::arg("grad_output"), py::arg("grad_state").noconvert() = none,
             py::arg("kept").noconvert() = none, "Gradients by name, float32.");
}

}  // namespace rattention::bindings
