// What a call of the core does to Python meanwhile.
#pragma once

#include <pybind11/pybind11.h>

#include "core/threads.h"

namespace rattention::bindings {

// Lets other threads run Python while it lives, and on the main thread hears signals: a handler that raises, as that
// of Ctrl-C does, ends the call with its exception.
class CoreCall {
 public:
  CoreCall() : state_(PyEval_SaveThread()), interrupts_(&hear_signals) {}
  ~CoreCall();
  CoreCall(const CoreCall&) = delete;
  CoreCall& operator=(const CoreCall&) = delete;

 private:
  static void hear_signals();

  PyThreadState* state_;
  Interrupts interrupts_;
};

}  // namespace rattention::bindings
