// What a forward pass keeps for the backward pass, as NumPy arrays; and pages of zeros for gradients.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace rattention::bindings {

// As words: compared bit by bit, parts of doubles are not always numbers.
using Words = pybind11::array_t<std::int32_t, pybind11::array::c_style>;

Words new_words(std::int64_t n);
float* floats_of(Words& words);
// That a backward pass only reads; `kept` holds it. Parts of larger arrays may begin anywhere.
float* kept_by_forward(Words& kept, std::int64_t n);

// By NumPy, whose zeros are pages that the kernels are the first to touch; what they leave out is zero.
pybind11::array_t<float> zero_pages(const std::vector<std::int64_t>& shape);
pybind11::array_t<float> zero_pages(const TensorView& like);

}  // namespace rattention::bindings
