// Which of the process's threads this is.
#pragma once

#ifdef __APPLE__
#include <pthread.h>
#else
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rattention {

inline bool is_main_thread() {
#ifdef __APPLE__
  return pthread_main_np() != 0;
#else
  return syscall(SYS_gettid) == getpid();
#endif
}

}  // namespace rattention
