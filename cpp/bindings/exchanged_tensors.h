// Tensors of other libraries by the exchange protocol of DLPack (dmlc.github.io/dlpack, version 1): a table of
// functions, found once, reads a tensor's memory without a call of Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "core/tensor.h"

namespace rattention::bindings {

// The table of `type(tensor).__dlpack_c_exchange_api__`. What it gives lives as long as the tensor.
class ExchangeTable {
 public:
  // ValueError where the capsule holds something else, or another version of the protocol.
  explicit ExchangeTable(const pybind11::capsule& capsule);

  // A tensor of rank 4 on the CPU, float32, bfloat16 or float16; TypeError or ValueError for others.
  TensorView view(const pybind11::handle& tensor) const;
  // The memory of a tensor of any rank as an array, which keeps the tensor.
  pybind11::array array(const pybind11::handle& tensor) const;

 private:
  const void* table_;
};

}  // namespace rattention::bindings
