// The table of contents of rattention._core.
#include "bindings/module.h"

#include <pybind11/stl.h>

#include "core/isa.h"
#include "core/openmp_team.h"
#include "core/scratch.h"
#include "core/task_times.h"
#include "core/threads.h"
#include "nn/dense_product.h"

namespace py = pybind11;

namespace {

// Where nobody knows how much was wanted, at least what it was wanted for.
void translate_bad_alloc(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const rattention::OutOfMemory& known) {
    PyErr_SetString(PyExc_MemoryError, known.what());
  } catch (const std::bad_alloc&) {
    PyErr_SetString(PyExc_MemoryError, "out of memory for arrays of the size that this call wants");
  }
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  try {
    rattention::require_supported_cpu();
  } catch (const std::runtime_error& error) {
    throw py::import_error(error.what());
  }
  py::register_local_exception_translator(translate_bad_alloc);
  module.doc() = "The C++ core of rattention. Its functions check shapes; the Python package checks types.";
  module.attr("__version__") = RATTENTION_VERSION;

  module.def("set_num_threads", &rattention::set_num_threads, py::arg("n"));
  module.def("share_openmp_team", &rattention::share_openmp_team,
             "Calls of the main thread use OpenMP's threads, as PyTorch does, from now on.");
  module.def("get_num_threads", &rattention::get_num_threads);
  module.def("record_task_times", &rattention::record_task_times,
             "From now on, note the processor time of every task of this thread's calls.");
  module.def("recorded_task_times", &rattention::recorded_task_times,
             "End that: seconds by loop and task. A call is one loop after the other; tasks start in order.");
  module.def("instruction_set", [] { return rattention::name_of(rattention::active_isa()); });
  module.def("instruction_sets", [] {
    return std::vector<std::string>(std::begin(rattention::kIsaNames), std::end(rattention::kIsaNames));
  });
  module.def("onednn_version", &rattention::onednn_version);

  rattention::bindings::bind_score_options(module);
  rattention::bindings::bind_attention(module);
  rattention::bindings::bind_maps(module);
  rattention::bindings::bind_gradients(module);
  rattention::bindings::bind_linear(module);
  rattention::bindings::bind_delta(module);
  rattention::bindings::bind_cache(module);
  rattention::bindings::bind_rotary(module);
  rattention::bindings::bind_nn(module);
  rattention::bindings::bind_tasks(module);
}
