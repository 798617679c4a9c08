#include "core/isa.h"

namespace rattention::detail {

// Every 64-bit Arm processor that runs programs of a system has NEON.
Isa detected_isa(Isa /*cap*/) { return Isa::neon; }

const char* missing_baseline() { return nullptr; }

}  // namespace rattention::detail
