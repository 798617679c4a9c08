#include "bindings/kept_words.h"

#include <pybind11/stl.h>

#include <algorithm>

namespace py = pybind11;

namespace rattention::bindings {

Words new_words(std::int64_t n) { return py::module_::import("numpy").attr("zeros")(n, "int32"); }

float* floats_of(Words& words) { return reinterpret_cast<float*>(words.mutable_data()); }

float* kept_by_forward(Words& kept, std::int64_t n) {
  if (kept.size() != n) throw py::value_error("kept must be what the forward pass of the same call kept");
  if (reinterpret_cast<std::uintptr_t>(kept.data()) % alignof(double) != 0) {
    Words copy = new_words(n);
    std::copy_n(kept.data(), n, copy.mutable_data());
    kept = copy;
  }
  return reinterpret_cast<float*>(const_cast<std::int32_t*>(kept.data()));
}

py::array_t<float> zero_pages(const std::vector<std::int64_t>& shape) {
  return py::module_::import("numpy").attr("zeros")(shape, "float32");
}

py::array_t<float> zero_pages(const TensorView& like) { return zero_pages({like.shape.begin(), like.shape.end()}); }

}  // namespace rattention::bindings
