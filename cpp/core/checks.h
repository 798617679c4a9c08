// What every check of sizes and arguments ends in.
#pragma once

#include <cstdint>
#include <string>

namespace rattention {

// std::invalid_argument; the message names the argument, what came and what is allowed.
[[noreturn]] void fail(const std::string& message);

// a * b for sizes, or std::bad_alloc where the product cannot be an array's size: an allocation of that size must fail
// anyway.
std::int64_t checked_product(std::int64_t a, std::int64_t b);

}  // namespace rattention
