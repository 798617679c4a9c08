// Softmax attention and what is measured on it.
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/exchanged_tensors.h"
#include "bindings/module.h"
#include "bindings/score_options.h"
#include "core/threads.h"
#include "kernels/fma_rate.h"
#include "metrics/received.h"
#include "metrics/row_metrics.h"
#include "softmax/checks.h"
#include "softmax/softmax_attention.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

// Result arrays of the metrics, allocated before the GIL is released.
class MetricArrays {
 public:
  MetricArrays(const ScoreProblem& problem, const py::object& options)
      : distances_{distance(options, "local_radius"), distance(options, "long_range_distance")},
        wants_received_(options.attr("received").cast<bool>()),
        max_position_(new_array<std::int64_t>(row_shape(problem))) {
    for (const char* name : kNames) rows_.emplace_back(name, new_array<float>(row_shape(problem)));
    if (wants_received_) {
      received_ = new_array<float>({problem.query.batch(), problem.query.heads(), problem.masks.key_length});
    }
  }

  static std::vector<std::int64_t> row_shape(const ScoreProblem& problem) {
    return {problem.query.batch(), problem.query.heads(), problem.row_count};
  }

  RowMetricOutputs outputs() {
    const auto row = [this](std::size_t i) { return rows_[i].second.mutable_data(); };
    return {row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7), max_position_.mutable_data()};
  }
  MetricDistances distances() const { return distances_; }
  float* received() { return wants_received_ ? received_.mutable_data() : nullptr; }

  py::dict as_dict() const {
    py::dict dict;
    for (const auto& [name, array] : rows_) dict[name] = array;
    dict["max_position"] = max_position_;
    if (wants_received_) dict["received"] = received_;
    return dict;
  }

 private:
  // Any whole number >= 0: one too large for the core is as good as the largest.
  static std::int64_t distance(const py::object& options, const char* name) {
    int too_large = 0;
    const std::int64_t value = PyLong_AsLongLongAndOverflow(options.attr(name).ptr(), &too_large);
    return too_large != 0 ? std::numeric_limits<std::int64_t>::max() : value;
  }

  static constexpr const char* kNames[] = {"entropy",      "local_concentration", "long_range",           "retention",
                                           "context_mean", "context_std",         "recent_distant_ratio", "max_weight"};
  MetricDistances distances_;
  bool wants_received_;
  py::array_t<std::int64_t> max_position_;
  py::array_t<float> received_;
  std::vector<std::pair<const char*, py::array_t<float>>> rows_;
};

// Runs the forward pass and what rides on it. GIL released by the caller.
void run(const ScoreProblem& problem, SoftmaxForward want, MetricDistances distances, const RowMetricOutputs* outputs,
         float* received) {
  std::optional<ReceivedInPassing> passing;
  if (received != nullptr && ReceivedInPassing::possible(problem)) passing.emplace(problem);
  if (outputs != nullptr) want.observer = row_metrics(problem, distances, *outputs, passing ? &*passing : nullptr);
  softmax_forward(problem, want);
  if (received == nullptr) return;
  if (passing) return passing->store(received);
  attention_received(problem, want.lse, received);
}

py::tuple attention(const py::array& query, const py::array& key, const py::array& value, const ScoreOptions& options,
                    const py::object& metric_options, bool return_lse) {
  const ScoreProblem problem = make_problem(query, key, options);
  const TensorView values = tensor_view("value", value);
  check_value(problem.key, values);
  OutputView output_view;
  py::array output =
      new_output(problem.query.dtype, {problem.query.batch(), problem.query.heads(), problem.row_count, values.dim()},
                 &output_view);
  std::optional<MetricArrays> arrays;
  if (!metric_options.is_none()) arrays.emplace(problem, metric_options);
  const bool needs_lse = return_lse || (arrays && arrays->received() != nullptr);
  py::object lse = needs_lse ? py::object(new_array<double>(MetricArrays::row_shape(problem))) : py::none();
  SoftmaxForward want;
  want.value = &values;
  want.output = &output_view;
  OutputView rest_view;
  py::object rest = py::none();
  if (return_lse && output_view.dtype != DType::f32) {
    rest = new_output(output_view.dtype, output_view.shape, &rest_view);
    want.output_rest = &rest_view;
  }
  if (needs_lse) want.lse = lse.cast<py::array_t<double>>().mutable_data();
  std::optional<RowMetricOutputs> outputs;
  if (arrays) outputs = arrays->outputs();
  float* received = arrays ? arrays->received() : nullptr;
  {
    const CoreCall call;
    run(problem, want, arrays ? arrays->distances() : MetricDistances{}, outputs ? &*outputs : nullptr, received);
  }
  return py::make_tuple(output, return_lse ? lse : py::none(), rest,
                        arrays ? py::object(arrays->as_dict()) : py::none());
}

// Nothing but the output, of the plain rule without masks but causality: short calls of frameworks.
py::array attention_of_tensors(const py::capsule& exchange, const py::handle& query, const py::handle& key,
                               const py::handle& value, bool causal, std::optional<float> scale) {
  const ExchangeTable table(exchange);
  ScoreProblem problem = scaled_dot_product(table.view(query), table.view(key));
  const TensorView values = table.view(value);
  check_value(problem.key, values);
  require(problem.query.dtype == problem.key.dtype && problem.key.dtype == values.dtype,
          "query, key and value must have one dtype");
  if (scale) problem.scale = *scale;
  if (causal) problem.masks.right = 0;
  OutputView view;
  py::array output = new_output(problem.query.dtype,
                                {problem.query.batch(), problem.query.heads(), problem.row_count, values.dim()}, &view);
  SoftmaxForward want;
  want.value = &values;
  want.output = &view;
  const CoreCall call;
  softmax_forward(problem, want);
  return output;
}

py::dict attention_metrics(const py::array& query, const py::array& key, const ScoreOptions& options,
                           const py::object& metric_options) {
  const ScoreProblem problem = make_problem(query, key, options);
  MetricArrays arrays(problem, metric_options);
  std::vector<double> lse;
  SoftmaxForward want;
  if (arrays.received() != nullptr) {
    lse.resize(static_cast<std::size_t>(problem.query.batch() * problem.query.heads() * problem.row_count));
    want.lse = lse.data();
  }
  const RowMetricOutputs outputs = arrays.outputs();
  float* received = arrays.received();
  {
    const CoreCall call;
    run(problem, want, arrays.distances(), &outputs, received);
  }
  return arrays.as_dict();
}

// Sum over `threads` threads of the rate of products, in GFLOP/s: the bound every kernel is measured against.
double peak(double (*rate)(double), double seconds, int threads) {
  const CoreCall call;
  std::vector<double> rates(static_cast<std::size_t>(threads));
  const int before = get_num_threads();
  set_num_threads(threads);
  parallel_for(threads, [&](std::int64_t i) { rates[static_cast<std::size_t>(i)] = rate(seconds); });
  set_num_threads(before);
  double total = 0;
  for (const double of_thread : rates) total += of_thread;
  return total;
}

}  // namespace

void bind_attention(py::module_& module) {
  module.def("attention", &attention, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("options"),
             py::arg("metrics"), py::arg("return_lse"),
             "(output, lse in float64 or None, what rounding took from the output or None, metrics or None)");
  module.def("attention_of_tensors", &attention_of_tensors, py::arg("exchange"), py::arg("query"), py::arg("key"),
             py::arg("value"), py::arg("causal"), py::arg("scale"),
             "The output for tensors of a library, by the exchange protocol of DLPack");
  module.def("attention_metrics", &attention_metrics, py::arg("query"), py::arg("key"), py::arg("options"),
             py::arg("metrics"));
  module.def(
      "fma_peak", [](double seconds, int threads) { return peak(&fma_rate, seconds, threads); }, py::arg("seconds"),
      py::arg("threads"), "Measured single-precision multiply-add rate of `threads` threads, in GFLOP/s.");
  module.def(
      "bf16_peak", [](double seconds, int threads) { return peak(&bf16_rate, seconds, threads); }, py::arg("seconds"),
      py::arg("threads"), "The same of bfloat16 summed in float32; 0 where no kernel multiplies bfloat16.");
}

}  // namespace rattention::bindings
