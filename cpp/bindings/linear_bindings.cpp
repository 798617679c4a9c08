// Residual linear attention and RAttention.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "mechanisms/checks.h"
#include "mechanisms/residual_linear.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

// Holds the arrays that a problem points into.
struct LinearOptions {
  std::int64_t window;
  FeatureMap feature_map;
  std::optional<FloatArray> initial_state;
  std::optional<py::array> key_padding_mask;
  std::optional<py::array> segment_ids;
};

void require_shape(const std::string& name, const py::array& array, const std::array<std::int64_t, 4>& shape) {
  bool equal = array.ndim() == 4;
  for (py::ssize_t i = 0; equal && i < 4; ++i) equal = array.shape(i) == shape[static_cast<std::size_t>(i)];
  if (!equal) {
    const auto came = py::str(py::object(array.attr("shape"))).cast<std::string>();
    throw py::value_error(name + " must have shape " + to_string(shape) + ", got " + came);
  }
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
    require_shape("initial_state", state, {batch, problem.state_heads, 2 * problem.key.dim(), problem.value.dim()});
    problem.initial_state = state.data();
  }
  if (options.key_padding_mask) problem.padding = padding_mask(*options.key_padding_mask, batch, length);
  if (options.segment_ids) problem.segments = segment_ids(*options.segment_ids, batch, length);
  return problem;
}

py::array_t<float> new_state(const LinearProblem& problem) {
  return new_array<float>(
      {problem.key.batch(), problem.final_heads(), 2 * problem.key.dim(), problem.value.dim()});
}

py::tuple residual_linear_attention(const py::array& query, const py::array& key, const py::array& value,
                                    const LinearOptions& options, bool return_state, bool save_states) {
  const LinearProblem problem = make_linear_problem(query, key, value, options);
  OutputView view;
  py::array output = new_output(
      problem.query.dtype,
      {problem.query.batch(), problem.query.heads(), problem.query.length(), problem.value.dim()}, &view);
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
    py::array_t<float> array = new_array<float>({ScanPlan(problem).pieces(), problem.state_size()});
    want.states = array.mutable_data();
    states = array;
  }
  {
    const py::gil_scoped_release unlocked;
    linear_forward(problem, want);
  }
  return py::make_tuple(output, state, states);
}

}  // namespace

void bind_linear(py::module_& module) {
  const py::object none = py::none();
  py::enum_<FeatureMap>(module, "FeatureMap").value("softmax", FeatureMap::softmax).value("relu", FeatureMap::relu);
  py::class_<LinearOptions>(module, "LinearOptions", "Options of the linear family; arrays are checked where they meet query and key.")
      .def(py::init([](std::int64_t window, FeatureMap feature_map, std::optional<FloatArray> initial_state,
                       std::optional<py::array> key_padding_mask, std::optional<py::array> segment_ids) {
             return LinearOptions{window, feature_map, std::move(initial_state), std::move(key_padding_mask),
                                  std::move(segment_ids)};
           }),
           py::kw_only(), py::arg("window"), py::arg("feature_map") = FeatureMap::softmax,
           py::arg("initial_state").noconvert() = none, py::arg("key_padding_mask") = none,
           py::arg("segment_ids") = none);
  module.def("residual_linear_attention", &residual_linear_attention, py::arg("query"), py::arg("key"), py::arg("value"),
             py::arg("options"), py::arg("return_state") = false, py::arg("save_states") = false,
             "(output, final state or None, saved states or None)");
}

}  // namespace rattention::bindings
