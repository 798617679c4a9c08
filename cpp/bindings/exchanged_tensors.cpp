#include "bindings/exchanged_tensors.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/arrays.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

// The binary interface of the protocol, as far as it is used here: its DLTensor and DLPackExchangeAPI.
constexpr std::uint32_t kMajorVersion = 1;
constexpr std::int32_t kCpu = 1;
constexpr std::uint8_t kFloat = 2;
constexpr std::uint8_t kBfloat = 4;

struct ExchangedTensor {
  void* data;
  struct {
    std::int32_t device_type;
    std::int32_t device_id;
  } device;
  std::int32_t ndim;
  struct {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
  } dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; nullptr where contiguous
  std::uint64_t byte_offset;
};

using UnusedFunction = void (*)();

struct ExchangeApi {
  struct {
    std::uint32_t major;
    std::uint32_t minor;
    void* previous;
  } header;
  UnusedFunction managed_tensor_allocator;
  UnusedFunction managed_tensor_from_py_object_no_sync;
  UnusedFunction managed_tensor_to_py_object_no_sync;
  int (*dltensor_from_py_object_no_sync)(void* object, ExchangedTensor* tensor);  // or nullptr
};

DType dtype_of(const ExchangedTensor& tensor) {
  const auto is = [&](std::uint8_t code, int bits) { return tensor.dtype.code == code && tensor.dtype.bits == bits; };
  if (tensor.dtype.lanes == 1) {
    if (is(kFloat, 32)) return DType::f32;
    if (is(kBfloat, 16)) return DType::bf16;
    if (is(kFloat, 16)) return DType::f16;
  }
  throw py::type_error("a tensor must be float32, bfloat16 or float16");
}

ExchangedTensor exchanged_of(const void* table, const py::handle& tensor) {
  ExchangedTensor exchanged{};
  if (static_cast<const ExchangeApi*>(table)->dltensor_from_py_object_no_sync(tensor.ptr(), &exchanged) != 0) {
    PyErr_Clear();
    throw py::value_error("the tensor cannot be exchanged");
  }
  require(exchanged.device.device_type == kCpu, "a tensor must be on the CPU");
  const bool empty = std::count(exchanged.shape, exchanged.shape + exchanged.ndim, 0) > 0;
  require(exchanged.data != nullptr || empty, "the tensor has no memory");
  return exchanged;
}

const std::byte* data_of(const ExchangedTensor& tensor) {
  return static_cast<const std::byte*>(tensor.data) + tensor.byte_offset;
}

// In bytes.
std::vector<std::int64_t> strides_of(const ExchangedTensor& tensor, std::int64_t item_size) {
  std::vector<std::int64_t> strides(static_cast<std::size_t>(tensor.ndim));
  std::int64_t contiguous = item_size;
  for (std::size_t i = strides.size(); i-- > 0;) {
    strides[i] = tensor.strides != nullptr ? tensor.strides[i] * item_size : contiguous;
    contiguous *= tensor.shape[i];
  }
  return strides;
}

}  // namespace

ExchangeTable::ExchangeTable(const py::capsule& capsule)
    : table_(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api")) {
  if (table_ == nullptr) throw py::error_already_set();
  const auto* api = static_cast<const ExchangeApi*>(table_);
  if (api->header.major != kMajorVersion || api->dltensor_from_py_object_no_sync == nullptr) {
    throw py::value_error("the exchange protocol of DLPack must have version 1 and give tensors, got version " +
                          std::to_string(api->header.major));
  }
}

TensorView ExchangeTable::view(const py::handle& tensor) const {
  const ExchangedTensor exchanged = exchanged_of(table_, tensor);
  require(exchanged.ndim == 4, "a tensor must have 4 dimensions");
  TensorView view;
  view.data = data_of(exchanged);
  view.dtype = dtype_of(exchanged);
  const std::vector<std::int64_t> strides = strides_of(exchanged, size_of(view.dtype));
  std::copy_n(exchanged.shape, 4, view.shape.begin());
  std::copy_n(strides.begin(), 4, view.strides.begin());
  return view;
}

py::array ExchangeTable::array(const py::handle& tensor) const {
  const ExchangedTensor exchanged = exchanged_of(table_, tensor);
  const DType dtype = dtype_of(exchanged);
  const std::vector<std::int64_t> shape(exchanged.shape, exchanged.shape + exchanged.ndim);
  return {storage_of(dtype), shape, strides_of(exchanged, size_of(dtype)), data_of(exchanged), tensor};
}

}  // namespace rattention::bindings
