#include "bindings/core_call.h"

#include <cxxabi.h>
#include <unistd.h>

#include "core/main_thread.h"

namespace py = pybind11;

namespace rattention::bindings {

// Before 3.14 Python unwinds the stack of a daemon thread that comes back when the interpreter has ended. Arrays would
// be let go of on the way, in an interpreter that is no more; so the thread waits for the end of the process here.
CoreCall::~CoreCall() {
#ifdef __GLIBCXX__
  try {
    PyEval_RestoreThread(state_);
  } catch (const abi::__forced_unwind&) {
    for (;;) pause();
  }
#else  // threads end without unwinding
  PyEval_RestoreThread(state_);
#endif
}

void CoreCall::hear_signals() {
  if (!is_main_thread()) return;  // Python hears signals on the main thread alone
  const py::gil_scoped_acquire locked;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace rattention::bindings
