#include "tasks/listops.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "core/threads.h"

namespace rattention {
namespace {

constexpr std::int64_t kTreesPerTask = 256;
constexpr int kDigits = 10;
constexpr std::int64_t kDeepest = 1000;  // of the calls of draw(), which the stack has to hold

enum Operator : std::uint8_t { kMin, kMax, kMed, kSumModulo, kOperators };

// SplitMix64: any 64 bits are a good seed, which makes a stream of every tree's number.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t stream) : state_(mix(seed) ^ mix(stream + kGolden)) {}

  // 0 to below - 1, evenly but for 2^-32.
  std::int64_t below(std::int64_t below) { return static_cast<std::int64_t>((next() >> 32U) * below >> 32U); }
  // [0, 1)
  double uniform() { return static_cast<double>(next() >> 11U) * 0x1p-53; }

 private:
  static constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15U;

  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31U);
  }
  std::uint64_t next() { return mix(state_ += kGolden); }

  std::uint64_t state_;
};

// How often each digit is among an operator's arguments: all that its value depends on.
class Arguments {
 public:
  void add(int digit) { ++counts_[static_cast<std::size_t>(digit)], ++total_; }

  int value(Operator op) const {
    switch (op) {
      case kMin:
        return nth(0);
      case kMax:
        return nth(total_ - 1);
      case kMed:
        return (nth((total_ - 1) / 2) + nth(total_ / 2)) / 2;  // truncated, as published
      default:
        return sum_modulo();
    }
  }

 private:
  // The n-th in ascending order, from 0.
  int nth(std::int64_t n) const {
    int digit = 0;
    while (n >= counts_[static_cast<std::size_t>(digit)]) n -= counts_[static_cast<std::size_t>(digit++)];
    return digit;
  }
  int sum_modulo() const {
    std::int64_t sum = 0;
    for (int digit = 0; digit < kDigits; ++digit) sum += digit * counts_[static_cast<std::size_t>(digit)];
    return static_cast<int>(sum % kDigits);
  }

  std::array<std::int64_t, kDigits> counts_{};
  std::int64_t total_ = 0;
};

class Tree {
 public:
  Tree(const ListOpsGrammar& grammar, std::uint64_t seed, std::int64_t number)
      : grammar_(grammar), random_(seed, static_cast<std::uint64_t>(number)) {}

  // Appends the expression to `tokens` and returns its value; kTooLong as soon as it is.
  int draw(std::vector<std::uint8_t>& tokens) {
    begin_ = tokens.size();
    return draw(tokens, 1);
  }

  static constexpr int kTooLong = -1;

 private:
  int draw(std::vector<std::uint8_t>& tokens, std::int64_t depth) {
    if (depth >= grammar_.max_depth || random_.uniform() >= grammar_.operator_share) {
      const int digit = static_cast<int>(random_.below(kDigits));
      tokens.push_back(static_cast<std::uint8_t>(kListOpsDigit + digit));
      return digit;
    }
    const auto op = static_cast<Operator>(random_.below(kOperators));
    const std::int64_t count = 2 + random_.below(grammar_.max_args - 1);
    tokens.push_back(static_cast<std::uint8_t>(kListOpsOperator + op));
    Arguments arguments;
    for (std::int64_t i = 0; i < count; ++i) {
      if (static_cast<std::int64_t>(tokens.size() - begin_) >= grammar_.max_length) return kTooLong;
      const int value = draw(tokens, depth + 1);
      if (value == kTooLong) return kTooLong;
      arguments.add(value);
    }
    tokens.push_back(kListOpsClose);
    return arguments.value(op);
  }

  const ListOpsGrammar& grammar_;
  Random random_;
  std::size_t begin_ = 0;
};

ListOpsSamples draw_some(const ListOpsGrammar& grammar, std::uint64_t seed, std::int64_t first, std::int64_t last) {
  ListOpsSamples samples;
  for (std::int64_t number = first; number < last; ++number) {
    const std::size_t begin = samples.tokens.size();
    const int value = Tree(grammar, seed, number).draw(samples.tokens);
    const auto length = static_cast<std::int64_t>(samples.tokens.size() - begin);
    if (value == Tree::kTooLong || length <= grammar.min_length || length >= grammar.max_length) {
      samples.tokens.resize(begin);
      continue;
    }
    samples.lengths.push_back(length);
    samples.labels.push_back(value);
  }
  return samples;
}

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

template <typename T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

ListOpsSamples draw_listops(const ListOpsGrammar& grammar, std::uint64_t seed, std::int64_t first, std::int64_t count) {
  require(first >= 0 && count >= 0, "first and count must be >= 0");
  require(grammar.min_length >= 0 && grammar.max_length > grammar.min_length + 1,
          "max_length must exceed min_length by 2 or more: both are exclusive");
  require(grammar.max_depth >= 1 && grammar.max_depth <= kDeepest, "max_depth must be between 1 and 1000");
  require(grammar.max_args >= 2 && grammar.max_args < (std::int64_t{1} << 31), "max_args must be >= 2 and below 2^31");
  require(grammar.operator_share >= 0 && grammar.operator_share <= 1, "operator_share must be between 0 and 1");
  const std::int64_t tasks = (count + kTreesPerTask - 1) / kTreesPerTask;
  std::vector<ListOpsSamples> parts(static_cast<std::size_t>(tasks));
  parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t begin = task * kTreesPerTask;
    parts[static_cast<std::size_t>(task)] =
        draw_some(grammar, seed, first + begin, first + std::min(begin + kTreesPerTask, count));
  });
  ListOpsSamples samples;
  for (const ListOpsSamples& part : parts) {
    append(samples.tokens, part.tokens);
    append(samples.lengths, part.lengths);
    append(samples.labels, part.labels);
  }
  return samples;
}

}  // namespace rattention
