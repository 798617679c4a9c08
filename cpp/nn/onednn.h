// What oneDNN's errors become. No file but onednn.cpp includes oneDNN.
#pragma once

#include <string>

namespace rattention {

// oneDNN's status, as this library's exception: std::bad_alloc for out_of_memory, otherwise std::runtime_error with the
// operation and the name of the status.
[[noreturn]] void throw_onednn_error(int status, const std::string& operation);

}  // namespace rattention
