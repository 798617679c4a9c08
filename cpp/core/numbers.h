// Numbers with names.
#pragma once

#include <limits>

namespace rattention {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace rattention
