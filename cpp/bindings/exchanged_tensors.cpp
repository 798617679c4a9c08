#include "bindings/exchanged_tensors.h"

#include <algorithm>
#include <cstdint>
#include <string>

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
  ExchangedTensor exchanged{};
  if (static_cast<const ExchangeApi*>(table_)->dltensor_from_py_object_no_sync(tensor.ptr(), &exchanged) != 0) {
    PyErr_Clear();
    throw py::value_error("the tensor cannot be exchanged");
  }
  if (exchanged.device.device_type != kCpu || exchanged.ndim != 4) {
    throw py::value_error("a tensor must have 4 dimensions and be on the CPU");
  }
  TensorView view;
  view.data = static_cast<const std::byte*>(exchanged.data) + exchanged.byte_offset;
  view.dtype = dtype_of(exchanged);
  std::int64_t stride = size_of(view.dtype);
  for (std::size_t i = 4; i-- > 0;) {
    view.shape[i] = exchanged.shape[i];
    view.strides[i] = exchanged.strides != nullptr ? exchanged.strides[i] * size_of(view.dtype) : stride;
    stride *= view.shape[i];
  }
  const bool empty = std::count(view.shape.begin(), view.shape.end(), 0) > 0;
  require(exchanged.data != nullptr || empty, "the tensor has no memory");
  return view;
}

}  // namespace rattention::bindings
