#include "core/isa.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

namespace rattention {
namespace {

constexpr int kCount = static_cast<int>(std::size(kIsaNames));

std::string all_names() {
  std::string text = kIsaNames[0];
  for (int i = 1; i < kCount; ++i) text.append(i + 1 < kCount ? ", " : " and ").append(kIsaNames[i]);
  return text;
}

Isa cap_from_environment() {
  const char* text = std::getenv("RATTENTION_MAX_ISA");
  if (text == nullptr || *text == '\0') return static_cast<Isa>(kCount - 1);
  const std::string name = text;
  for (int i = 0; i < kCount; ++i) {
    if (name == kIsaNames[i]) return static_cast<Isa>(i);
  }
  throw std::runtime_error("RATTENTION_MAX_ISA is '" + name + "'; allowed on this processor: " + all_names());
}

}  // namespace

const char* name_of(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

Isa active_isa() {
  static const Isa isa = [] {
    const Isa cap = cap_from_environment();
    return std::min(detail::detected_isa(cap), cap);
  }();
  return isa;
}

void require_supported_cpu() {
  if (const char* missing = detail::missing_baseline(); missing != nullptr) throw std::runtime_error(missing);
  active_isa();
}

}  // namespace rattention
