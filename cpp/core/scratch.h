// Working memory of one thread, kept from call to call so that a call costs no page faults.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace rattention {

// Hands out 64-byte aligned pieces of one block. Pieces live until the next reset().
class Scratch {
 public:
  void reset(std::int64_t floats) {
    if (floats <= capacity_) {
      used_ = 0;
      return;
    }
    memory_.reset();
    capacity_ = 0;
    const auto bytes = static_cast<std::size_t>(round_up(floats) * static_cast<std::int64_t>(sizeof(float)));
    memory_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (!memory_) throw std::bad_alloc();
    capacity_ = round_up(floats);
    used_ = 0;
  }

  float* take(std::int64_t floats) {
    if (used_ + round_up(floats) > capacity_) throw std::bad_alloc();
    float* piece = memory_.get() + used_;
    used_ += round_up(floats);
    return piece;
  }

  static constexpr std::int64_t round_up(std::int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> memory_;
  std::int64_t capacity_ = 0;
  std::int64_t used_ = 0;
};

// The calling thread's scratch. One user at a time: a kernel that calls another while holding pieces needs its own.
inline Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

}  // namespace rattention
