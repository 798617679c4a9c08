// What rattention.studies.lra draws its data with.
#include <algorithm>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/module.h"
#include "tasks/listops.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

template <typename T>
py::array_t<T> array_of(const std::vector<T>& values) {
  py::array_t<T> array = new_array<T>({static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

py::tuple call_draw_listops(std::uint64_t seed, std::int64_t first, std::int64_t count, std::int64_t min_length,
                            std::int64_t max_length, std::int64_t max_depth, std::int64_t max_args,
                            double operator_share) {
  const ListOpsGrammar grammar{min_length, max_length, max_depth, max_args, operator_share};
  ListOpsSamples samples;
  {
    const CoreCall call;
    samples = draw_listops(grammar, seed, first, count);
  }
  return py::make_tuple(array_of(samples.tokens), array_of(samples.lengths), array_of(samples.labels));
}

}  // namespace

void bind_tasks(py::module_& module) {
  module.def("draw_listops", &call_draw_listops, py::arg("seed"), py::arg("first"), py::arg("count"), py::kw_only(),
             py::arg("min_length"), py::arg("max_length"), py::arg("max_depth"), py::arg("max_args"),
             py::arg("operator_share"));
}

}  // namespace rattention::bindings
