// Backward passes.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/module.h"
#include "bindings/score_options.h"
#include "softmax/checks.h"
#include "softmax/softmax_backward.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

py::array_t<float> zeros(const std::vector<std::int64_t>& shape) {
  auto array = new_array<float>(shape);
  std::fill(array.mutable_data(), array.mutable_data() + array.size(), 0.0F);
  return array;
}

std::vector<std::int64_t> shape_of(const TensorView& view) { return {view.shape.begin(), view.shape.end()}; }

// The gradients of one call by name, and where the kernel writes them.
class Gradients {
 public:
  float* add(const char* name, const std::vector<std::int64_t>& shape) {
    py::array_t<float> array = zeros(shape);
    dict_[name] = array;
    return array.mutable_data();
  }
  py::dict dict() const { return dict_; }

 private:
  py::dict dict_;
};

template <typename Number>
const Number* row_numbers(const char* name, const py::array& array, const ScoreProblem& problem) {
  const auto numbers = py::array_t<Number, py::array::c_style>::ensure(array);
  const std::int64_t rows = problem.query.batch() * problem.query.heads() * problem.row_count;
  if (!numbers || numbers.ptr() != array.ptr() || array.size() != rows) {
    throw py::value_error(std::string(name) + " must be a contiguous array [batch, heads, query_length] of float" +
                          std::to_string(8 * sizeof(Number)));
  }
  return numbers.data();
}

py::dict attention_backward(const py::array& query, const py::array& key, const py::array& value,
                            const ScoreOptions& options, const py::array& output, const py::array& lse,
                            const py::array& grad_output, const std::optional<py::array>& grad_lse,
                            const std::optional<py::array>& output_rest, bool of_mask) {
  const ScoreProblem problem = make_problem(query, key, options);
  SoftmaxSaved saved{tensor_view("value", value), tensor_view("output", output),
                     tensor_view("grad_output", grad_output)};
  check_value(problem.key, saved.value);
  const std::vector<std::int64_t> shape{problem.query.batch(), problem.query.heads(), problem.row_count,
                                        saved.value.dim()};
  require_shape("output", output, shape);
  require_shape("grad_output", grad_output, shape);
  TensorView rest;
  if (output_rest) {
    rest = tensor_view("output_rest", *output_rest);
    require_shape("output_rest", *output_rest, shape);
    saved.output_rest = &rest;
  }
  saved.lse = row_numbers<double>("lse", lse, problem);
  if (grad_lse) saved.grad_lse = row_numbers<float>("grad_lse", *grad_lse, problem);

  Gradients arrays;
  SoftmaxGradients gradients;
  gradients.query = arrays.add("query", shape_of(problem.query));
  gradients.key = arrays.add("key", shape_of(problem.key));
  gradients.value = arrays.add("value", shape_of(saved.value));
  for (const RuleParameter& parameter : problem.rule->parameters(problem)) {
    gradients.rule.push_back(arrays.add(parameter.name, parameter.shape));
  }
  if (problem.log_discount != nullptr) {
    gradients.log_discount = arrays.add("log_discount", {shape[0], shape[1], shape[2]});
  }
  if (problem.sinks != nullptr) gradients.sinks = arrays.add("sinks", {shape[0], shape[1], shape[2]});
  if (problem.relative_bias) {
    const std::int64_t blocks = problem.row_blocks();
    gradients.relative_bias =
        arrays.add("relative_bias", {shape[0], shape[1], blocks, problem.relative_bias->entries()});
  }
  if (of_mask) {
    gradients.attn_mask = arrays.add("attn_mask", {shape[0], shape[1], shape[2], problem.masks.key_length});
  }
  {
    const CoreCall call;
    softmax_backward(problem, saved, gradients);
  }
  return arrays.dict();
}

}  // namespace

void bind_gradients(py::module_& module) {
  module.def("attention_backward", &attention_backward, py::arg("query"), py::arg("key"), py::arg("value"),
             py::arg("options"), py::arg("output"), py::arg("lse"), py::arg("grad_output"),
             py::arg("grad_lse") = py::none(), py::arg("output_rest") = py::none(), py::arg("of_mask") = false,
             "Gradients by name, float32; those of gravity, exponent, log_discount and sinks are per query row, "
             "that of relative_bias per block of rows, that of attn_mask per pair.");
}

}  // namespace rattention::bindings
