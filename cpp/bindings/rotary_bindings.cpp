// Rotary embedding of whole arrays.
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/module.h"
#include "kernels/rotary_rows.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

void require_fits(const TensorView& rows, const RotaryPairs& pairs, std::int64_t first_position) {
  require(pairs.dims >= 0 && pairs.dims % 2 == 0 && pairs.dims <= rows.dim(),
          "dims must be an even number from 0 to the head_dim " + std::to_string(rows.dim()) + ", got " +
              std::to_string(pairs.dims));
  require(first_position >= 0, "first_position must be >= 0, got " + std::to_string(first_position));
}

// Of [length, ...] or [batch, length, ...], of which the axes behind the length have been checked.
bool is_per_batch(const std::string& name, const py::array& array, const TensorView& rows, py::ssize_t rank) {
  const bool per_batch = array.ndim() == rank + 1;
  require((per_batch || array.ndim() == rank) && array.shape(per_batch) == rows.length() &&
              (!per_batch || array.shape(0) == rows.batch()),
          name + " must have one entry per row of x: length " + std::to_string(rows.length()) + ", batch " +
              std::to_string(rows.batch()));
  return per_batch;
}

// Farther ones are no whole numbers of float64.
void require_exact(const IndexArray& positions) {
  constexpr std::int64_t kFarthest = std::int64_t{1} << 53;
  const std::int64_t* at = positions.data();
  for (py::ssize_t i = 0; i < positions.size(); ++i) {
    require(at[i] >= -kFarthest && at[i] <= kFarthest,
            "positions must be from -2^53 to 2^53, got " + std::to_string(at[i]));
  }
}

py::array rotary(const py::array& x, double theta, std::int64_t first_position, std::int64_t dims,
                 const std::optional<IndexArray>& positions, const std::optional<FloatArray>& table, bool interleaved,
                 bool back) {
  const TensorView rows = tensor_view("x", x);
  const RotaryPairs pairs{dims, interleaved, back};
  require_fits(rows, pairs, first_position);
  RotaryTable angles;
  FloatArray filled;
  if (table) {
    angles = {table->data(), is_per_batch("table", *table, rows, 2)};
    require(table->shape(table->ndim() - 1) == dims, "table must have dims numbers per row");
  } else if (positions) {
    angles.per_batch = is_per_batch("positions", *positions, rows, 1);
    require_exact(*positions);
    filled = new_array<float>({positions->size(), dims});
    angles.entries = filled.data();
  }
  OutputView turned;
  py::array output = new_output(rows.dtype, rows.shape, &turned);
  const std::int64_t* at = positions ? positions->data() : nullptr;
  const std::int64_t n = positions ? positions->size() : 0;
  float* entries = table ? nullptr : filled.mutable_data();
  {
    const CoreCall call;
    if (!table && !positions) {
      rotate_rows(rows, pairs, theta, first_position, turned);
    } else {
      if (!table) fill_rotary_table(at, n, dims, theta, entries);
      rotate_rows(rows, pairs, angles, turned);
    }
  }
  return output;
}

}  // namespace

void bind_rotary(py::module_& module) {
  const py::object none = py::none();
  module.def("rotary", &rotary, py::arg("x"), py::arg("theta"), py::arg("first_position"), py::arg("dims"),
             py::kw_only(), py::arg("positions").noconvert() = none, py::arg("table").noconvert() = none,
             py::arg("interleaved") = false, py::arg("back") = false,
             "The rows turned to their positions, or back, in their dtype; a table has cosines, then sines, per row.");
}

}  // namespace rattention::bindings
