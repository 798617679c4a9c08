// Expressions of ListOps (arXiv 1804.06028) as Long Range Arena (arXiv 2011.04006) draws them: nested operators on
// lists of digits, whose value is the label. Here because only one tree in twelve has a length within the usual bounds,
// and a hundred thousand are wanted.
#pragma once

#include <cstdint>
#include <vector>

namespace rattention {

// Tokens: 0 is padding, 1 to 10 are the digits 0 to 9, 11 to 14 open MIN, MAX, MED and SM (sum modulo 10), 15 closes.
constexpr std::uint8_t kListOpsDigit = 1;
constexpr std::uint8_t kListOpsOperator = 11;
constexpr std::uint8_t kListOpsClose = 15;

struct ListOpsGrammar {
  std::int64_t min_length = 0;  // of the tokens, exclusive as in the published generator
  std::int64_t max_length = 0;  // exclusive
  std::int64_t max_depth = 0;   // levels of the tree, the root being 1; digits alone on the last
  std::int64_t max_args = 0;    // an operator has 2 to this many arguments, evenly
  double operator_share = 0;    // probability of an operator where the depth allows one
};

struct ListOpsSamples {
  std::vector<std::uint8_t> tokens;   // one expression behind the other
  std::vector<std::int64_t> lengths;  // of each expression
  std::vector<std::int64_t> labels;   // 0 to 9
};

// Draws the trees numbered [first, first + count) and keeps those whose length is within the bounds, in that order;
// each number has random numbers of its own, so that neither threads nor the way of counting change any.
// std::invalid_argument where the grammar makes no sense.
ListOpsSamples draw_listops(const ListOpsGrammar& grammar, std::uint64_t seed, std::int64_t first, std::int64_t count);

}  // namespace rattention
