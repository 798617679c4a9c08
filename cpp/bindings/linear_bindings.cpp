// Residual linear attention and RAttention.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/kept_words.h"
#include "bindings/module.h"
#include "linear/residual_linear.h"
#include "linear/residual_linear_backward.h"
#include "rattention/rattention.h"
#include "softmax/checks.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

using Shape = std::vector<std::int64_t>;

// Holds the arrays that a problem points into.
struct LinearOptions {
  std::int64_t window;
  FeatureMap feature_map;
  std::optional<FloatArray> log_gate;
  float scale;
  std::optional<FloatArray> initial_state;
  std::optional<py::array> key_mask;
  std::optional<py::array> segment_ids;
};

std::array<std::int64_t, 4> output_shape(const LinearProblem& problem) {
  return {problem.query.batch(), problem.query.heads(), problem.query.length(), problem.value.dim()};
}

Shape state_shape(const LinearProblem& problem, std::int64_t heads) {
  return {problem.key.batch(), heads, problem.features(), problem.value.dim()};
}

// `gate`: what users call the gates.
LinearProblem make_linear_problem(const py::array& query, const py::array& key, const py::array& value,
                                  const LinearOptions& options, const char* gate = "log_gate") {
  LinearProblem problem;
  problem.query = tensor_view("query", query);
  problem.key = tensor_view("key", key);
  problem.value = tensor_view("value", value);
  check_query_and_key(problem.query, problem.key);
  check_value(problem.key, problem.value);
  const std::int64_t length = problem.key.length();
  const std::int64_t batch = problem.key.batch();
  check_equal_lengths(problem.query, problem.key);
  problem.feature_map = options.feature_map;
  problem.window = std::clamp<std::int64_t>(options.window, -1, length);
  if (options.log_gate) {
    require_shape(gate, *options.log_gate, {batch, problem.key.heads(), length});
    problem.log_gates = options.log_gate->data();
    problem.scale = options.scale;
  }
  if (options.initial_state) {
    const FloatArray& state = *options.initial_state;
    const bool per_query_head = state.ndim() == 4 && state.shape(1) == problem.query.heads();
    problem.state_heads = per_query_head ? problem.query.heads() : problem.key.heads();
    require_shape("initial_state", state, state_shape(problem, problem.state_heads));
    problem.initial_state = state.data();
  }
  if (options.key_mask) problem.padding = padding_mask(*options.key_mask, batch, length);
  if (options.log_gate) require_log_gate(gate, *options.log_gate, problem.padding);
  if (options.segment_ids) problem.segments = key_ids("segment_ids", *options.segment_ids, batch, length);
  return problem;
}

py::array_t<float> new_state(const LinearProblem& problem) {
  return new_array<float>(state_shape(problem, problem.final_heads()));
}

TensorView gradient_view(const LinearProblem& problem, const py::array& grad_output) {
  const auto shape = output_shape(problem);
  require_shape("grad_output", grad_output, {shape.begin(), shape.end()});
  return tensor_view("grad_output", grad_output);
}

const float* grad_of_state(const LinearProblem& problem, const std::optional<FloatArray>& grad_state) {
  if (!grad_state) return nullptr;
  require_shape("grad_state", *grad_state, state_shape(problem, problem.final_heads()));
  return grad_state->data();
}

py::tuple residual_linear_attention(const py::array& query, const py::array& key, const py::array& value,
                                    const LinearOptions& options, bool return_state, bool keep) {
  const LinearProblem problem = make_linear_problem(query, key, value, options);
  const ScanPlan plan(problem);
  OutputView view;
  py::array output = new_output(problem.query.dtype, output_shape(problem), &view);
  LinearForward want;
  want.output = &view;
  py::object state = py::none();
  py::object kept = py::none();
  if (return_state) {
    py::array_t<float> array = new_state(problem);
    want.final_state = array.mutable_data();
    state = array;
  }
  if (keep) {
    Words words = new_words(most_saved_floats(problem));
    want.states = floats_of(words);
    kept = words;
  }
  {
    const CoreCall call;
    linear_forward(problem, plan, want);
  }
  return py::make_tuple(output, state, kept);
}

// The gradients of one call by name.
struct GradientArrays {
  explicit GradientArrays(const LinearProblem& problem)
      : query(zero_pages(problem.query)), key(zero_pages(problem.key)), value(zero_pages(problem.value)) {
    if (problem.initial_state != nullptr) initial_state = zero_pages(state_shape(problem, problem.state_heads));
    if (problem.log_gates != nullptr) {
      log_gate = zero_pages(Shape{problem.key.batch(), problem.key.heads(), problem.key.length()});
    }
  }
  LinearGradients views() {
    return {query.mutable_data(),
            key.mutable_data(),
            value.mutable_data(),
            initial_state ? initial_state->mutable_data() : nullptr,
            log_gate ? log_gate->mutable_data() : nullptr,
            false};
  }
  py::dict dict(const char* gate = "log_gate") const {
    py::dict names;
    names["query"] = query;
    names["key"] = key;
    names["value"] = value;
    if (initial_state) names["initial_state"] = *initial_state;
    if (log_gate) names[gate] = *log_gate;
    return names;
  }

  py::array_t<float> query, key, value;
  std::optional<py::array_t<float>> initial_state;
  std::optional<py::array_t<float>> log_gate;
};

py::dict residual_linear_attention_backward(const py::array& query, const py::array& key, const py::array& value,
                                            const LinearOptions& options, const py::array& grad_output,
                                            const std::optional<FloatArray>& grad_state, std::optional<Words> kept) {
  const LinearProblem problem = make_linear_problem(query, key, value, options);
  const ScanPlan plan(problem);
  LinearSaved saved{gradient_view(problem, grad_output), grad_of_state(problem, grad_state)};
  if (kept) saved.states = kept_by_forward(*kept, most_saved_floats(problem));
  GradientArrays arrays(problem);
  const LinearGradients gradients = arrays.views();
  {
    const CoreCall call;
    linear_backward(problem, plan, saved, gradients);
  }
  return arrays.dict();
}

// Keeps the norm weights that a problem points into.
struct NormArrays {
  std::optional<FloatArray> local;
  std::optional<FloatArray> linear;
};

RAttentionProblem make_rattention_problem(const py::array& query, const py::array& key, const py::array& value,
                                          const LinearOptions& options, float scale,
                                          const std::optional<RateArray>& rope, float eps, const NormArrays& weights) {
  RAttentionProblem problem;
  problem.linear = make_linear_problem(query, key, value, options, "gate");
  problem.scale = scale;
  problem.rope = rates_of(rope);
  problem.norms.eps = eps;
  const std::int64_t heads = problem.linear.query.heads();
  const std::int64_t value_dim = problem.linear.value.dim();
  problem.norms.local_weight = norm_weight("local_norm_weight", weights.local, heads, value_dim);
  problem.norms.linear_weight = norm_weight("linear_norm_weight", weights.linear, heads, value_dim);
  return problem;
}

py::tuple rattention(const py::array& query, const py::array& key, const py::array& value, const LinearOptions& options,
                     float scale, const std::optional<RateArray>& rope, float eps,
                     const std::optional<FloatArray>& local_norm_weight,
                     const std::optional<FloatArray>& linear_norm_weight, bool return_state, bool keep) {
  const NormArrays weights{local_norm_weight, linear_norm_weight};
  const RAttentionProblem problem = make_rattention_problem(query, key, value, options, scale, rope, eps, weights);
  OutputView view;
  py::array output = new_output(problem.linear.query.dtype, output_shape(problem.linear), &view);
  LinearForward want;
  want.output = &view;
  py::object state = py::none();
  if (return_state) {
    py::array_t<float> array = new_state(problem.linear);
    want.final_state = array.mutable_data();
    state = array;
  }
  py::object kept = py::none();
  std::optional<RAttentionKept> memory;
  if (keep) {
    Words words = new_words(RAttentionKept::floats(problem));
    memory.emplace(problem, floats_of(words));
    kept = words;
  }
  {
    const CoreCall call;
    rattention_forward(problem, want, memory ? &*memory : nullptr);
  }
  return py::make_tuple(output, state, kept);
}

py::dict rattention_backward_by_name(const py::array& query, const py::array& key, const py::array& value,
                                     const LinearOptions& options, const py::array& grad_output, float scale,
                                     const std::optional<RateArray>& rope, float eps,
                                     const std::optional<FloatArray>& local_norm_weight,
                                     const std::optional<FloatArray>& linear_norm_weight,
                                     const std::optional<FloatArray>& grad_state, std::optional<Words> kept) {
  const NormArrays weights{local_norm_weight, linear_norm_weight};
  const RAttentionProblem problem = make_rattention_problem(query, key, value, options, scale, rope, eps, weights);
  std::optional<RAttentionKept> memory;
  if (kept) memory.emplace(problem, kept_by_forward(*kept, RAttentionKept::floats(problem)));
  const RAttentionSaved saved{gradient_view(problem.linear, grad_output), grad_of_state(problem.linear, grad_state),
                              memory ? &*memory : nullptr};
  GradientArrays arrays(problem.linear);
  py::array_t<float> local_weight = zero_pages(Shape{problem.linear.query.heads(), problem.linear.value.dim()});
  py::array_t<float> linear_weight = zero_pages(Shape{problem.linear.query.heads(), problem.linear.value.dim()});
  const RAttentionGradients gradients{arrays.views(), local_weight.mutable_data(), linear_weight.mutable_data()};
  {
    const CoreCall call;
    rattention_backward(problem, saved, gradients);
  }
  py::dict names = arrays.dict("gate");
  names["local_norm_weight"] = local_weight;
  names["linear_norm_weight"] = linear_weight;
  return names;
}

}  // namespace

void bind_linear(py::module_& module) {
  const py::object none = py::none();
  py::enum_<FeatureMap>(module, "FeatureMap")
      .value("softmax", FeatureMap::softmax)
      .value("relu", FeatureMap::relu)
      .value("none", FeatureMap::none);
  py::class_<LinearOptions>(module, "LinearOptions",
                            "Options of the linear family; arrays are checked where they meet query and key.")
      .def(py::init([](std::int64_t window, FeatureMap feature_map, std::optional<FloatArray> log_gate, float scale,
                       std::optional<FloatArray> initial_state, std::optional<py::array> key_mask,
                       std::optional<py::array> segment_ids) {
             if (segment_ids) segment_ids = own_integers(*segment_ids);
             return LinearOptions{window,
                                  feature_map,
                                  std::move(log_gate),
                                  scale,
                                  std::move(initial_state),
                                  std::move(key_mask),
                                  std::move(segment_ids)};
           }),
           py::kw_only(), py::arg("window"), py::arg("feature_map") = FeatureMap::softmax,
           py::arg("log_gate").noconvert() = none, py::arg("scale") = 1.0F, py::arg("initial_state").noconvert() = none,
           py::arg("key_mask") = none, py::arg("segment_ids") = none);
  module.def("stretch_tokens", &stretch_tokens, py::arg("group"),
             "Tokens between two states that a forward pass keeps, where as many query heads share a state.");
  module.def("residual_linear_attention", &residual_linear_attention, py::arg("query"), py::arg("key"),
             py::arg("value"), py::arg("options"), py::arg("return_state") = false, py::arg("keep") = false,
             "(output, final state or None, what the backward pass takes as `kept` or None)");
  module.def("residual_linear_attention_backward", &residual_linear_attention_backward, py::arg("query"),
             py::arg("key"), py::arg("value"), py::arg("options"), py::arg("grad_output"),
             py::arg("grad_state").noconvert() = none, py::arg("kept").noconvert() = none,
             "Gradients by name, float32.");
  module.def("rattention", &rattention, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("options"),
             py::kw_only(), py::arg("scale"), py::arg("rope").noconvert(), py::arg("eps"),
             py::arg("local_norm_weight").noconvert() = none, py::arg("linear_norm_weight").noconvert() = none,
             py::arg("return_state") = false, py::arg("keep") = false,
             "(output, final state or None, what the backward pass takes or None); rope holds frequencies and factors, "
             "[2, head_dim / 2].");
  module.def("rattention_backward", &rattention_backward_by_name, py::arg("query"), py::arg("key"), py::arg("value"),
             py::arg("options"), py::arg("grad_output"), py::kw_only(), py::arg("scale"), py::arg("rope").noconvert(),
             py::arg("eps"), py::arg("local_norm_weight").noconvert() = none,
             py::arg("linear_norm_weight").noconvert() = none, py::arg("grad_state").noconvert() = none,
             py::arg("kept").noconvert() = none, "Gradients by name, float32.");
}

}  // namespace rattention::bindings
