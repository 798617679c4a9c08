// Residual linear attention and RAttention.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
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
  std::optional<FloatArray> initial_state;
  std::optional<py::array> key_mask;
  std::optional<py::array> segment_ids;
};

std::array<std::int64_t, 4> output_shape(const LinearProblem& problem) {
  return {problem.query.batch(), problem.query.heads(), problem.query.length(), problem.value.dim()};
}

Shape state_shape(const LinearProblem& problem, std::int64_t heads) {
  return {problem.key.batch(), heads, 2 * problem.key.dim(), problem.value.dim()};
}

LinearProblem make_linear_problem(const py::array& query, const py::array& key, const py::array& value,
                                  const LinearOptions& options) {
  LinearProblem problem;
  problem.query = tensor_view("query", query);
  problem.key = tensor_view("key", key);
  problem.value = tensor_view("value", value);
  check_query_and_key(problem.query, problem.key);
  check_value(problem.key, problem.value);
  const std::int64_t length = problem.key.length();
  const std::int64_t batch = problem.key.batch();
  if (problem.query.length() != length) {
    throw py::value_error("key has length " + std::to_string(length) + ", query has " +
                          std::to_string(problem.query.length()) + "; they must be equal");
  }
  problem.feature_map = options.feature_map;
  problem.window = std::clamp<std::int64_t>(options.window, -1, length);
  if (options.initial_state) {
    const FloatArray& state = *options.initial_state;
    const bool per_query_head = state.ndim() == 4 && state.shape(1) == problem.query.heads();
    problem.state_heads = per_query_head ? problem.query.heads() : problem.key.heads();
    require_shape("initial_state", state, state_shape(problem, problem.state_heads));
    problem.initial_state = state.data();
  }
  if (options.key_mask) problem.padding = padding_mask(*options.key_mask, batch, length);
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

const float* saved_states(const LinearProblem& problem, const ScanPlan& plan, const FloatArray& states) {
  if (states.size() != plan.saved_states() * problem.state_size()) {
    throw py::value_error("states must be what the forward pass of the same call saved");
  }
  return states.data();
}

py::tuple residual_linear_attention(const py::array& query, const py::array& key, const py::array& value,
                                    const LinearOptions& options, bool return_state, bool save_states) {
  const LinearProblem problem = make_linear_problem(query, key, value, options);
  const ScanPlan plan(problem);
  OutputView view;
  py::array output = new_output(problem.query.dtype, output_shape(problem), &view);
  LinearForward want;
  want.output = &view;
  py::object state = py::none();
  py::object states = py::none();
  if (return_state) {
    py::array_t<float> array = new_state(problem);
    want.final_state = array.mutable_data();
    state = array;
  }
  if (save_states) {
    py::array_t<float> array = new_array<float>({plan.saved_states(), problem.state_size()});
    want.states = array.mutable_data();
    states = array;
  }
  {
    const CoreCall call;
    linear_forward(problem, plan, want);
  }
  return py::make_tuple(output, state, states);
}

// By NumPy, whose zeros are pages that the kernels are the first to touch.
py::array_t<float> zero_pages(const Shape& shape) {
  return py::module_::import("numpy").attr("zeros")(shape, "float32");
}

py::array_t<float> zero_pages(const TensorView& like) { return zero_pages({like.shape.begin(), like.shape.end()}); }

// The gradients of one call by name.
struct GradientArrays {
  explicit GradientArrays(const LinearProblem& problem)
      : query(zero_pages(problem.query)), key(zero_pages(problem.key)), value(zero_pages(problem.value)) {
    if (problem.initial_state != nullptr) initial_state = zero_pages(state_shape(problem, problem.state_heads));
  }
  LinearGradients views() {
    return {query.mutable_data(), key.mutable_data(), value.mutable_data(),
            initial_state ? initial_state->mutable_data() : nullptr, false};
  }
  py::dict dict() const {
    py::dict names;
    names["query"] = query;
    names["key"] = key;
    names["value"] = value;
    if (initial_state) names["initial_state"] = *initial_state;
    return names;
  }

  py::array_t<float> query, key, value;
  std::optional<py::array_t<float>> initial_state;
};

py::dict residual_linear_attention_backward(const py::array& query, const py::array& key, const py::array& value,
                                            const LinearOptions& options, const py::array& grad_output,
                                            const std::optional<FloatArray>& grad_state,
                                            const std::optional<FloatArray>& states) {
  const LinearProblem problem = make_linear_problem(query, key, value, options);
  const ScanPlan plan(problem);
  LinearSaved saved{gradient_view(problem, grad_output), grad_of_state(problem, grad_state)};
  if (states) saved.states = saved_states(problem, plan, *states);
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
  problem.linear = make_linear_problem(query, key, value, options);
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
                     const std::optional<FloatArray>& linear_norm_weight, bool return_state) {
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
  {
    const CoreCall call;
    rattention_forward(problem, want);
  }
  return py::make_tuple(output, state);
}

py::dict rattention_backward_by_name(const py::array& query, const py::array& key, const py::array& value,
                                     const LinearOptions& options, const py::array& grad_output, float scale,
                                     const std::optional<RateArray>& rope, float eps,
                                     const std::optional<FloatArray>& local_norm_weight,
                                     const std::optional<FloatArray>& linear_norm_weight,
                                     const std::optional<FloatArray>& grad_state) {
  const NormArrays weights{local_norm_weight, linear_norm_weight};
  const RAttentionProblem problem = make_rattention_problem(query, key, value, options, scale, rope, eps, weights);
  const RAttentionSaved saved{gradient_view(problem.linear, grad_output), grad_of_state(problem.linear, grad_state)};
  GradientArrays arrays(problem.linear);
  py::array_t<float> local_weight = zero_pages(Shape{problem.linear.query.heads(), problem.linear.value.dim()});
  py::array_t<float> linear_weight = zero_pages(Shape{problem.linear.query.heads(), problem.linear.value.dim()});
  const RAttentionGradients gradients{arrays.views(), local_weight.mutable_data(), linear_weight.mutable_data()};
  {
    const CoreCall call;
    rattention_backward(problem, saved, gradients);
  }
  py::dict names = arrays.dict();
  names["local_norm_weight"] = local_weight;
  names["linear_norm_weight"] = linear_weight;
  return names;
}

}  // namespace

void bind_linear(py::module_& module) {
  const py::object none = py::none();
  py::enum_<FeatureMap>(module, "FeatureMap").value("softmax", FeatureMap::softmax).value("relu", FeatureMap::relu);
  py::class_<LinearOptions>(module, "LinearOptions",
                            "Options of the linear family; arrays are checked where they meet query and key.")
      .def(py::init([](std::int64_t window, FeatureMap feature_map, std::optional<FloatArray> initial_state,
                       std::optional<py::array> key_mask, std::optional<py::array> segment_ids) {
             if (segment_ids) segment_ids = own_integers(*segment_ids);
             return LinearOptions{window, feature_map, std::move(initial_state), std::move(key_mask),
                                  std::move(segment_ids)};
           }),
           py::kw_only(), py::arg("window"), py::arg("feature_map") = FeatureMap::softmax,
           py::arg("initial_state").noconvert() = none, py::arg("key_mask") = none, py::arg("segment_ids") = none);
  module.def("residual_linear_attention", &residual_linear_attention, py::arg("query"), py::arg("key"),
             py::arg("value"), py::arg("options"), py::arg("return_state") = false, py::arg("save_states") = false,
             "(output, final state or None, saved states or None)");
  module.def("residual_linear_attention_backward", &residual_linear_attention_backward, py::arg("query"),
             py::arg("key"), py::arg("value"), py::arg("options"), py::arg("grad_output"),
             py::arg("grad_state").noconvert() = none, py::arg("states").noconvert() = none,
             "Gradients by name, float32.");
  module.def("rattention", &rattention, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("options"),
             py::kw_only(), py::arg("scale"), py::arg("rope").noconvert(), py::arg("eps"),
             py::arg("local_norm_weight").noconvert() = none, py::arg("linear_norm_weight").noconvert() = none,
             py::arg("return_state") = false,
             "(output, final state or None); rope holds frequencies and factors, [2, head_dim / 2].");
  module.def("rattention_backward", &rattention_backward_by_name, py::arg("query"), py::arg("key"), py::arg("value"),
             py::arg("options"), py::arg("grad_output"), py::kw_only(), py::arg("scale"), py::arg("rope").noconvert(),
             py::arg("eps"), py::arg("local_norm_weight").noconvert() = none,
             py::arg("linear_norm_weight").noconvert() = none, py::arg("grad_state").noconvert() = none,
             "Gradients by name, float32.");
}

}  // namespace rattention::bindings
