// What oneDNN's status codes become.
#include <new>
#include <stdexcept>
#include <string>

#include "check.h"
#include "nn/dense_product.h"
#include "nn/onednn.h"

namespace {

using rattention::test::mentions;

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
  CHECK(rattention::onednn_version().value().rfind("3.", 0) == 0);
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
      {"every status of oneDNN is named", every_status_of_onednn_is_named},
      {"what oneDNN refuses is told", what_onednn_refuses_is_told},
  });
}
