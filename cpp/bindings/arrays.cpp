#include "bindings/arrays.h"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "core/checks.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

DType dtype_of(const std::string& name, const py::array& array) {
  const char kind = array.dtype().kind();
  const auto size = array.dtype().itemsize();
  if (kind == 'f' && size == 4) return DType::f32;
  if (kind == 'f' && size == 2) return DType::f16;
  if (kind == 'u' && size == 2) return DType::bf16;
  throw py::type_error(name + " must be float32, float16 or bfloat16 (as uint16)");
}

// As Python writes a tuple.
std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string shape_text(const py::array& array) { return text_of({array.shape(), array.shape() + array.ndim()}); }

void require_size(const std::vector<std::int64_t>& shape, std::int64_t item_size) {
  std::int64_t size = item_size;
  for (const std::int64_t extent : shape) {
    if (extent == 0) return;
  }
  for (const std::int64_t extent : shape) size = checked_product(size, extent);
}

const std::byte* bytes(const py::array& array) { return static_cast<const std::byte*>(array.data()); }

}  // namespace

void require_shape(const std::string& name, const py::array& array, const std::vector<std::int64_t>& shape,
                   const std::string& axes) {
  if (std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim())) return;
  const std::string named = axes.empty() ? "" : "(" + axes + ") = ";
  throw py::value_error(name + " must have shape " + named + text_of(shape) + ", got " + shape_text(array));
}

TensorView tensor_view(const std::string& name, const py::array& array) {
  if (array.ndim() != 4) {
    throw py::value_error(name + " must have 4 dimensions [batch, heads, length, head_dim], got shape " +
                          shape_text(array));
  }
  TensorView view;
  view.data = bytes(array);
  view.dtype = dtype_of(name, array);
  for (std::size_t i = 0; i < 4; ++i) {
    view.shape[i] = array.shape(static_cast<py::ssize_t>(i));
    view.strides[i] = array.strides(static_cast<py::ssize_t>(i));
  }
  return view;
}

TensorView mass_view(const std::string& name, const py::array& array) {
  if (array.ndim() != 3) {
    throw py::value_error(name + " must have 3 dimensions [batch, heads, length], got shape " + shape_text(array));
  }
  TensorView view{bytes(array), dtype_of(name, array), {0, 0, 0, 1}, {}};
  for (std::size_t i = 0; i < 3; ++i) {
    view.shape[i] = array.shape(static_cast<py::ssize_t>(i));
    view.strides[i] = array.strides(static_cast<py::ssize_t>(i));
  }
  return view;
}

py::dtype storage_of(DType dtype) {
  constexpr int kHalf = 23;  // NPY_HALF; a name would take longer to find than a short call takes
  if (dtype == DType::f16) return py::dtype(kHalf);
  return dtype == DType::f32 ? py::dtype::of<float>() : py::dtype::of<std::uint16_t>();
}

PaddingMask padding_mask(const py::array& array, std::int64_t batch, std::int64_t key_length) {
  require_shape("key_mask", array, {batch, key_length});
  return {bytes(array), {array.strides(0), array.strides(1)}};
}

DenseMask dense_mask(const py::array& array, const std::array<std::int64_t, 4>& shape) {
  DenseMask mask{bytes(array), array.dtype().kind() == 'b', DType::f32, {}};
  if (!mask.boolean) mask.dtype = dtype_of("attn_mask", array);
  const py::ssize_t missing = 4 - array.ndim();
  bool fits = missing >= 0;
  for (py::ssize_t i = std::max<py::ssize_t>(missing, 0); fits && i < 4; ++i) {
    const py::ssize_t extent = array.shape(i - missing);
    const auto axis = static_cast<std::size_t>(i);
    fits = extent == shape[axis] || extent == 1;
    mask.strides[axis] = extent == 1 ? 0 : array.strides(i - missing);
  }
  if (!fits) {
    throw py::value_error("attn_mask of shape " + shape_text(array) +
                          " cannot be broadcast to [batch, heads, query_length, key_length] = " + to_string(shape));
  }
  return mask;
}

const std::int64_t* key_ids(const std::string& name, const py::array& array, std::int64_t batch,
                            std::int64_t key_length) {
  require_shape(name, array, {batch, key_length});
  return static_cast<const std::int64_t*>(array.data());
}

const float* floats(const std::string& name, const py::array& array, const std::vector<std::int64_t>& shape) {
  require_shape(name, array, shape);
  if (!py::isinstance<py::array_t<float, py::array::c_style>>(array)) {
    throw py::value_error(name + " must be contiguous float32");
  }
  return static_cast<const float*>(array.data());
}

void require_log_gate(const std::string& name, const FloatArray& gates, const std::optional<PaddingMask>& padding) {
  const std::int64_t length = gates.shape(2);
  const std::int64_t channels = gates.ndim() == 4 ? gates.shape(3) : 1;
  // Tokens that are checked together: all, where none is hidden.
  const std::int64_t span = padding ? channels : gates.size();
  std::int64_t wrong = 0;
  for (std::int64_t at = 0; at < gates.size(); at += span) {
    const std::int64_t token = at / channels;
    if (padding && padding->hides(token / length / gates.shape(1), token % length)) continue;
    wrong += std::count_if(gates.data() + at, gates.data() + at + span, [](float gate) { return !(gate <= 0.0F); });
  }
  require(wrong == 0, name + " must be <= 0, the logarithm of a decay; " + std::to_string(wrong) + " of " +
                          std::to_string(gates.size()) + " are not");
}

const float* norm_weight(const std::string& name, const std::optional<FloatArray>& weight, std::int64_t heads,
                         std::int64_t value_dim) {
  if (!weight) return nullptr;
  require_shape(name, *weight, {heads, value_dim}, "heads, value_dim");
  return weight->data();
}

RotaryRates rates_of(const std::optional<RateArray>& rope) {
  if (!rope) return {};
  if (rope->ndim() != 2 || rope->shape(0) != 2) throw py::value_error("rope must have shape [2, head_dim / 2]");
  const double* frequencies = rope->data();
  const double* factors = frequencies + rope->shape(1);
  return {{frequencies, factors}, {factors, factors + rope->shape(1)}};
}

py::array own_integers(const py::array& array) {
  return py::array(array.attr("astype")("int64", py::arg("order") = "C", py::arg("copy") = true));
}

template <typename T>
py::array_t<T> new_array(const std::vector<std::int64_t>& shape) {
  require_size(shape, sizeof(T));
  return py::array_t<T>(shape);
}

template py::array_t<float> new_array<float>(const std::vector<std::int64_t>&);
template py::array_t<double> new_array<double>(const std::vector<std::int64_t>&);
template py::array_t<std::uint8_t> new_array<std::uint8_t>(const std::vector<std::int64_t>&);
template py::array_t<std::int64_t> new_array<std::int64_t>(const std::vector<std::int64_t>&);

py::array new_output(DType dtype, const std::array<std::int64_t, 4>& shape, OutputView* view) {
  const std::vector<std::int64_t> extents(shape.begin(), shape.end());
  require_size(extents, size_of(dtype));
  py::array array(storage_of(dtype), extents);
  *view = {static_cast<std::byte*>(array.mutable_data()), dtype, shape};
  return array;
}

}  // namespace rattention::bindings
