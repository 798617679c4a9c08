// The layers around attention, for rattention.models.
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/module.h"
#include "nn/layers.h"
#include "nn/linear.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

void require_rows(const std::string& name, const FloatArray& array, std::int64_t width) {
  require(array.ndim() == 2 && array.shape(1) == width,
          name + " must have shape (rows, " + std::to_string(width) + ")");
}

std::unique_ptr<Linear> make_linear(const FloatArray& weight, const std::optional<FloatArray>& bias,
                                    Activation activation) {
  require(weight.ndim() == 2 && weight.size() > 0,
          "weight must have shape (out_features, in_features), none of them 0");
  if (bias) require_shape("bias", *bias, {weight.shape(0)});
  const float* bias_data = bias ? bias->data() : nullptr;
  const float* weight_data = weight.data();
  const std::int64_t out = weight.shape(0);
  const std::int64_t in = weight.shape(1);
  const CoreCall call;
  return std::make_unique<Linear>(weight_data, bias_data, out, in, activation);
}

py::array_t<float> call_linear(const Linear& linear, const FloatArray& x) {
  require_rows("x", x, linear.in_features());
  py::array_t<float> y = new_array<float>({x.shape(0), linear.out_features()});
  const float* in = x.data();
  float* out = y.mutable_data();
  const std::int64_t rows = x.shape(0);
  const CoreCall call;
  linear(in, rows, out);
  return y;
}

py::array_t<float> layer_norm(const FloatArray& x, const FloatArray& weight, const FloatArray& bias, float eps,
                              const std::optional<FloatArray>& residual) {
  const std::int64_t width = weight.ndim() == 1 ? weight.shape(0) : 0;
  require(width > 0, "weight must have shape (width,) with width > 0");
  require_shape("bias", bias, {width});
  require_rows("x", x, width);
  if (residual)
    require(residual->ndim() == 2 && residual->shape(0) == x.shape(0), "residual must have as many rows as x");
  if (residual) require_rows("residual", *residual, width);
  py::array_t<float> y = new_array<float>({x.shape(0), width});
  const LayerNorm norm{weight.data(), bias.data(), width, eps};
  const float* in = x.data();
  const float* added = residual ? residual->data() : nullptr;
  float* out = y.mutable_data();
  const std::int64_t rows = x.shape(0);
  const CoreCall call;
  norm(in, added, rows, out);
  return y;
}

py::array_t<float> sum_embeddings(const std::vector<std::tuple<std::string, FloatArray, IndexArray>>& lookups) {
  require(!lookups.empty(), "at least one table is needed");
  const IndexArray& first = std::get<2>(lookups.front());
  const FloatArray& first_table = std::get<1>(lookups.front());
  require(first.ndim() == 1 && first_table.ndim() == 2, "tables must have 2 dimensions and indices 1");
  std::vector<py::array> own_indices;
  std::vector<EmbeddingTerm> terms;
  for (const auto& [name, table, indices] : lookups) {
    require_rows("the table of " + name, table, first_table.shape(1));
    require(indices.ndim() == 1 && indices.size() == first.size(), name + " must be as long as the other indices");
    own_indices.push_back(own_integers(indices));
    const auto* own = static_cast<const std::int64_t*>(own_indices.back().data());
    terms.push_back({name, table.data(), table.shape(0), own});
  }
  py::array_t<float> y = new_array<float>({first.size(), first_table.shape(1)});
  float* out = y.mutable_data();
  const std::int64_t rows = first.size();
  const std::int64_t width = first_table.shape(1);
  const CoreCall call;
  embedding_sum(terms, rows, width, out);
  return y;
}

}  // namespace

void bind_nn(py::module_& module) {
  py::enum_<Activation>(module, "Activation")
      .value("none", Activation::none)
      .value("gelu", Activation::gelu)
      .value("gelu_tanh", Activation::gelu_tanh)
      .value("relu", Activation::relu)
      .value("silu", Activation::silu);
  py::class_<Linear>(module, "Linear")
      .def(py::init(&make_linear), py::arg("weight").noconvert(), py::arg("bias").noconvert(),
           py::arg("activation") = Activation::none)
      .def("__call__", &call_linear, py::arg("x").noconvert());
  module.def("layer_norm", &layer_norm, py::arg("x").noconvert(), py::arg("weight").noconvert(),
             py::arg("bias").noconvert(), py::arg("eps"), py::arg("residual").noconvert() = py::none());
  module.def("embedding_sum", &sum_embeddings, py::arg("lookups").noconvert());
}

}  // namespace rattention::bindings
