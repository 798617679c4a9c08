// What a call of the core does to Python meanwhile.
#pragma once

#include <pybind11/pybind11.h>

#include "core/threads.h"

namespace rattention::bindings {

// Lets other threads run Python while it lives, and on the main thread hears signals: a handler that raises, as that
// of Ctrl-C does, ends the call with its exception.
class CoreCall {
 public:
  CoreCall() : interrupts_(&hear_signals) {}

 private:
  static void hear_signals();

  pybind11::gil_scoped_release released_;
  Interrupts interrupts_;
};

}  // namespace rattention::bindings
