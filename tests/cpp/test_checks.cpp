// Faults at the door: shapes that do not fit, and sizes that overflow.
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "attention_problem.h"
#include "check.h"
#include "core/checks.h"
#include "softmax/checks.h"

namespace {

using namespace rattention::test;
using rattention::TensorView;

TensorView shaped(std::int64_t batch, std::int64_t heads, std::int64_t length, std::int64_t dim) {
  TensorView view;
  view.shape = {batch, heads, length, dim};
  return view;
}

template <typename Call>
std::string complaint(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

void shapes_that_do_not_fit_are_named() {
  const TensorView query = shaped(2, 4, 3, 8);
  rattention::check_query_and_key(query, shaped(2, 2, 5, 8));
  const auto bad_key = [&](const TensorView& key) {
    return complaint([&] { rattention::check_query_and_key(query, key); });
  };
  CHECK(mentions(bad_key(shaped(3, 2, 5, 8)), "batch"));
  CHECK(mentions(bad_key(shaped(2, 3, 5, 8)), "heads"));
  CHECK(mentions(bad_key(shaped(2, 2, 5, 7)), "7"));
  CHECK(mentions(complaint([] { rattention::check_query_and_key(shaped(1, 1, 2, 0), shaped(1, 1, 2, 0)); }), "dim"));
  const TensorView key = shaped(2, 2, 5, 8);
  rattention::check_value(key, shaped(2, 2, 5, 11));
  CHECK(mentions(complaint([&] { rattention::check_value(key, shaped(2, 2, 8, 8)); }), "value"));
  CHECK(mentions(complaint([&] { rattention::check_value(key, shaped(2, 4, 5, 8)); }), "value"));
}

void sizes_that_overflow_are_refused() {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  CHECK(rattention::checked_product(1 << 20, 1 << 20) == std::int64_t{1} << 40);
  CHECK(rattention::checked_product(0, most) == 0);
  for (const std::int64_t other : {std::int64_t{3}, most}) {
    bool refused = false;
    try {
      rattention::checked_product(most, other);
    } catch (const std::bad_alloc&) {
      refused = true;
    }
    CHECK(refused);
  }
}

}  // namespace

int main() {
  return rattention::test::run({
      {"shapes that do not fit are named", shapes_that_do_not_fit_are_named},
      {"sizes that overflow are refused", sizes_that_overflow_are_refused},
  });
}
