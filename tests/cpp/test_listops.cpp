// Trees of ListOps: their form, their values by an evaluation of their own, their bounds, and that neither threads nor
// the way of counting change any.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "core/threads.h"
#include "tasks/listops.h"

namespace {

using rattention::draw_listops;
using rattention::kListOpsClose;
using rattention::kListOpsDigit;
using rattention::kListOpsOperator;
using rattention::ListOpsGrammar;
using rattention::ListOpsSamples;

const ListOpsGrammar kPublished{500, 2000, 10, 10, 0.25};
const ListOpsGrammar kSmall{5, 40, 4, 5, 0.5};

int value_of(int op, std::vector<int> arguments) {
  std::sort(arguments.begin(), arguments.end());
  const std::size_t n = arguments.size();
  int sum = 0;
  for (const int x : arguments) sum += x;
  switch (op) {
    case 0:
      return arguments.front();
    case 1:
      return arguments.back();
    case 2:
      return n % 2 == 1 ? arguments[n / 2] : (arguments[n / 2 - 1] + arguments[n / 2]) / 2;
    default:
      return sum % 10;
  }
}

struct Reader {
  const std::uint8_t* token;
  const std::uint8_t* end;
  std::int64_t deepest = 0;
  std::size_t most_arguments = 0;

  int read(std::int64_t depth) {
    deepest = std::max(deepest, depth);
    CHECK(token < end);
    const int id = *token++;
    if (id < kListOpsOperator) {
      CHECK(id >= kListOpsDigit);
      return id - kListOpsDigit;
    }
    CHECK(id < kListOpsClose);
    std::vector<int> arguments;
    while (token < end && *token != kListOpsClose) arguments.push_back(read(depth + 1));
    CHECK(token < end && arguments.size() >= 2);
    ++token;
    most_arguments = std::max(most_arguments, arguments.size());
    return value_of(id - kListOpsOperator, arguments);
  }
};

void check_samples(const ListOpsGrammar& grammar, const ListOpsSamples& samples) {
  const std::uint8_t* token = samples.tokens.data();
  for (std::size_t i = 0; i < samples.lengths.size(); ++i) {
    const std::int64_t length = samples.lengths[i];
    CHECK(length > grammar.min_length && length < grammar.max_length);
    Reader reader{token, token + length};
    CHECK(reader.read(1) == samples.labels[i]);
    CHECK(reader.token == reader.end);
    CHECK(reader.deepest <= grammar.max_depth);
    CHECK(static_cast<std::int64_t>(reader.most_arguments) <= grammar.max_args);
    token += length;
  }
  CHECK(token == samples.tokens.data() + samples.tokens.size());
}

void labels_are_the_values() {
  check_samples(kPublished, draw_listops(kPublished, 1, 0, 5000));
  const ListOpsSamples small = draw_listops(kSmall, 2, 0, 5000);
  CHECK(small.labels.size() > 500);
  check_samples(kSmall, small);
}

void one_tree_in_twelve_is_kept() {
  const double kept = static_cast<double>(draw_listops(kPublished, 3, 0, 20000).labels.size()) / 20000;
  CHECK_CLOSE(kept, 0.083, 0.008);  // measured of the published generator, four standard errors
}

void threads_and_counting_change_nothing() {
  const ListOpsSamples whole = draw_listops(kSmall, 7, 0, 2000);
  for (const int threads : {1, 2, 8}) {
    rattention::set_num_threads(threads);
    const ListOpsSamples head = draw_listops(kSmall, 7, 0, 777);
    const ListOpsSamples tail = draw_listops(kSmall, 7, 777, 1223);
    std::vector<std::uint8_t> tokens = head.tokens;
    tokens.insert(tokens.end(), tail.tokens.begin(), tail.tokens.end());
    CHECK(tokens == whole.tokens);
    CHECK(head.labels.size() + tail.labels.size() == whole.labels.size());
  }
  rattention::set_num_threads(0);
  CHECK(draw_listops(kSmall, 8, 0, 2000).tokens != whole.tokens);
}

void bounds_are_exclusive() {
  const ListOpsSamples samples = draw_listops({5, 7, 4, 5, 0.5}, 0, 0, 5000);
  CHECK(!samples.lengths.empty());
  CHECK(std::all_of(samples.lengths.begin(), samples.lengths.end(), [](std::int64_t n) { return n == 6; }));
}

void grammars_without_sense_are_refused() {
  const std::vector<ListOpsGrammar> grammars{{-1, 9, 3, 3, 0.5},         {5, 6, 3, 3, 0.5},   {0, 9, 0, 3, 0.5},
                                             {0, 9, 3, 1, 0.5},          {0, 9, 3, 3, 1.5},   {0, 9, 3, 3, -0.5},
                                             {0, 9, 3, 3, std::nan("")}, {0, 9, 1001, 3, 0.5}};
  for (const ListOpsGrammar& grammar : grammars) {
    bool refused = false;
    try {
      draw_listops(grammar, 0, 0, 1);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    CHECK(refused);
  }
  CHECK(draw_listops(kSmall, 0, 0, 0).labels.empty());
}

}  // namespace

int main() {
  return rattention::test::run({{"labels are the values", labels_are_the_values},
                                {"one tree in twelve is kept", one_tree_in_twelve_is_kept},
                                {"threads and counting change nothing", threads_and_counting_change_nothing},
                                {"bounds are exclusive", bounds_are_exclusive},
                                {"grammars without sense are refused", grammars_without_sense_are_refused}});
}
