# oneDNN, and for the C++ tests Eigen, come from PyPI wheels that carry CMake packages. Inside pip's isolated build
# environment they are found by asking Python where the distributions' files lie; without Python, CMake alone finds what
# is installed or lies in CMAKE_PREFIX_PATH.
find_package(Python COMPONENTS Interpreter QUIET)

function(rattention_prefix_from_distribution distribution config_file)
  if(NOT Python_EXECUTABLE)
    return()
  endif()
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "
import importlib.metadata as m
try:
    files = m.distribution('${distribution}').files or []
except m.PackageNotFoundError:
    files = []
print(next((f.locate().resolve().parent.as_posix() for f in files if f.name == '${config_file}'), ''), end='')"
    OUTPUT_VARIABLE folder)
  if(folder)
    set(CMAKE_PREFIX_PATH "${CMAKE_PREFIX_PATH};${folder}" PARENT_SCOPE)
  endif()
endfunction()

# PyPI has oneDNN for Linux on x86-64 alone; it is built with OpenMP. Elsewhere OpenMP serves to share the threads of
# libraries that use it, where there is one.
set(linux_on_x86 OFF)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND RATTENTION_PROCESSOR STREQUAL "x86")
  set(linux_on_x86 ON)
endif()
option(RATTENTION_ONEDNN "Dense layers by oneDNN instead of our own kernels" ${linux_on_x86})
option(RATTENTION_OPENMP "Share the threads of OpenMP where it is found" ON)

if(RATTENTION_ONEDNN)
  rattention_prefix_from_distribution(onednn-devel-cpu-gomp dnnl-config.cmake)
  find_package(dnnl 3 CONFIG REQUIRED)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
elseif(RATTENTION_OPENMP)
  find_package(OpenMP COMPONENTS CXX)
endif()
if(NOT OpenMP_CXX_FOUND)
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_package(Threads REQUIRED)
endif()
if(RATTENTION_CPP_TESTS)
  rattention_prefix_from_distribution(cmeel-eigen Eigen3Config.cmake)
  find_package(Eigen3 3.4 CONFIG REQUIRED)
endif()
