#include "core/checks.h"

#include <limits>
#include <new>
#include <stdexcept>

namespace rattention {

void fail(const std::string& message) { throw std::invalid_argument(message); }

std::int64_t checked_product(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product) || product > (std::numeric_limits<std::int64_t>::max() >> 4)) {
    throw std::bad_alloc();
  }
  return product;
}

}  // namespace rattention
