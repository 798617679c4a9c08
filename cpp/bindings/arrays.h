// NumPy arrays as views, and new arrays for results.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "kernels/rotary.h"
#include "softmax/masks.h"

namespace rattention::bindings {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style>;
using RateArray = pybind11::array_t<double, pybind11::array::c_style>;
using IndexArray = pybind11::array_t<std::int64_t, pybind11::array::c_style>;

// Throws ValueError with the message where a condition does not hold.
inline void require(bool holds, const std::string& message) {
  if (!holds) throw pybind11::value_error(message);
}

// ValueError where an array has another shape; `axes` names those it should have, "heads, value_dim".
void require_shape(const std::string& name, const pybind11::array& array, const std::vector<std::int64_t>& shape,
                   const std::string& axes = {});

// A float array of rank 4. bfloat16 comes as its storage, uint16. The view lives as long as the array.
TensorView tensor_view(const std::string& name, const pybind11::array& array);

// In which arrays hold numbers: bfloat16 as uint16.
pybind11::dtype storage_of(DType dtype);

// Masses [batch, heads, length] as a view whose rows have one element.
TensorView mass_view(const std::string& name, const pybind11::array& array);

PaddingMask padding_mask(const pybind11::array& array, std::int64_t batch, std::int64_t key_length);
DenseMask dense_mask(const pybind11::array& array, const std::array<std::int64_t, 4>& shape);
// Integers of every key, own_integers() of that shape.
const std::int64_t* key_ids(const std::string& name, const pybind11::array& array, std::int64_t batch,
                            std::int64_t key_length);
// A contiguous float32 array of just this shape; ValueError for others.
const float* floats(const std::string& name, const pybind11::array& array, const std::vector<std::int64_t>& shape);

// ValueError where a gate of a visible token, [batch, heads, length] or [batch, heads, length, head_dim], is no
// logarithm of a decay.
void require_log_gate(const std::string& name, const FloatArray& gates, const std::optional<PaddingMask>& padding);

// Weights of a norm, [heads, value_dim], or nullptr without them.
const float* norm_weight(const std::string& name, const std::optional<FloatArray>& weight, std::int64_t heads,
                         std::int64_t value_dim);

// A rotary embedding's frequencies and factors, [2, head_dim / 2]; none without an array.
RotaryRates rates_of(const std::optional<RateArray>& rope);

// Numbers that decide which memory is read: they are the core's own, because other threads may write to the caller's
// array once the GIL is released.
pybind11::array own_integers(const pybind11::array& array);

// A new, contiguous array; MemoryError where its size is none.
template <typename T>
pybind11::array_t<T> new_array(const std::vector<std::int64_t>& shape);
pybind11::array new_output(DType dtype, const std::array<std::int64_t, 4>& shape, OutputView* view);

extern template pybind11::array_t<float> new_array<float>(const std::vector<std::int64_t>&);
extern template pybind11::array_t<std::uint8_t> new_array<std::uint8_t>(const std::vector<std::int64_t>&);
extern template pybind11::array_t<std::int64_t> new_array<std::int64_t>(const std::vector<std::int64_t>&);

}  // namespace rattention::bindings
