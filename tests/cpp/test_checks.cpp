// Faults at the door: shapes that do not fit, sizes that overflow, and what oneDNN's status codes become.
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "attention_problem.h"
#include "check.h"
#include "core/checks.h"
#include "core/onednn.h"
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

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

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

// Codes of dnnl_status_t, in the order that oneDNN documents.
const char* const kStatuses[] = {"success",           "out_of_memory", "invalid_arguments", "unimplemented",
                                 "last_impl_reached", "runtime_error", "not_required",      "invalid_graph",
                                 "invalid_graph_op",  "invalid_shape", "invalid_data_type"};

void every_status_of_onednn_is_named() {
  for (int status = 1; status < 11; ++status) {
    std::string message;
    try {
      rattention::throw_onednn_error(status, "some operation");
    } catch (const std::bad_alloc&) {
      message = "some operation out_of_memory";
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    CHECK(mentions(message, "some operation"));
    CHECK(mentions(message, kStatuses[status]));
  }
  CHECK(rattention::onednn_version().rfind("3.", 0) == 0);
}

void what_onednn_refuses_is_told() {
  std::string message;
  try {
    const rattention::DenseProduct product({-1, 1, 1, 1}, rattention::Activation::none);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  CHECK(mentions(message, "prepare a dense layer"));
  CHECK(mentions(message, "invalid_arguments"));
}

}  // namespace

int main() {
  return rattention::test::run({
      {"shapes that do not fit are named", shapes_that_do_not_fit_are_named},
      {"sizes that overflow are refused", sizes_that_overflow_are_refused},
      {"every status of oneDNN is named", every_status_of_onednn_is_named},
      {"what oneDNN refuses is told", what_onednn_refuses_is_told},
  });
}
