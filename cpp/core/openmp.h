// What is asked of OpenMP, and the answers where the core is built without it.
#pragma once

#ifdef _OPENMP

#include <omp.h>

namespace rattention {

inline int openmp_threads() { return omp_get_max_threads(); }
inline void set_openmp_threads(int n) { omp_set_num_threads(n); }
inline bool in_openmp_region() { return omp_in_parallel() != 0; }
inline int processors() { return omp_get_num_procs(); }

}  // namespace rattention

#else

namespace rattention {

// Threads of the next region: OMP_NUM_THREADS, or one per processor.
int openmp_threads();
inline void set_openmp_threads(int) {}
inline bool in_openmp_region() { return false; }
// That this process may run on.
int processors();

}  // namespace rattention

#endif
