#include "bindings/core_call.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace py = pybind11;

namespace rattention::bindings {

void CoreCall::hear_signals() {
  if (syscall(SYS_gettid) != getpid()) return;  // Python hears signals on the main thread alone
  const py::gil_scoped_acquire locked;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace rattention::bindings
