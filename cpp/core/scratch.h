// Working memory of one thread, kept from call to call so that a call costs no page faults; and what is thrown where
// there is none.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace rattention {

// Says how much was wanted.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::int64_t bytes) noexcept;
  const char* what() const noexcept override { return text_; }

 private:
  char text_[64];  // there is no memory for more
};

// Hands out 64-byte aligned pieces of one block. Pieces live until the next reset().
class Scratch {
 public:
  // Makes room for `floats` in all; OutOfMemory where there is none.
  void reset(std::int64_t floats);
  float* take(std::int64_t floats);

  static constexpr std::int64_t round_up(std::int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  // In builds with sanitizers, results show where working memory is read before it is written.
  void poison();

  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> memory_;
  std::int64_t capacity_ = 0;
  std::int64_t used_ = 0;
};

// What a kernel works on, and what it needs beside that while it calls another that works on a scratch of its own.
enum class ScratchUse : std::uint8_t { kernel, states, row };

// The calling thread's scratch for that use, which has one user at a time.
Scratch& thread_scratch(ScratchUse use = ScratchUse::kernel);

// Makes what the loader would make when this thread first touches it, and end the process where there is no memory for
// it: the scratch above and what the C++ library keeps of exceptions.
void make_thread_data() noexcept;

}  // namespace rattention
