// What each family of bindings adds to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace rattention::bindings {

void bind_score_options(pybind11::module_& module);
void bind_attention(pybind11::module_& module);
void bind_maps(pybind11::module_& module);
void bind_gradients(pybind11::module_& module);
void bind_linear(pybind11::module_& module);
void bind_delta(pybind11::module_& module);
void bind_cache(pybind11::module_& module);
void bind_rotary(pybind11::module_& module);
void bind_nn(pybind11::module_& module);
void bind_tasks(pybind11::module_& module);

}  // namespace rattention::bindings
