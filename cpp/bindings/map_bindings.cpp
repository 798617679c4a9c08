// What is read from attention maps: rows, pooled parts, mass by segment and by distance, largest weights.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_call.h"
#include "bindings/module.h"
#include "bindings/score_options.h"
#include "metrics/distance_mass.h"
#include "metrics/pooled_map.h"
#include "metrics/top_keys.h"
#include "softmax/softmax_attention.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

using Lse = std::optional<RateArray>;
using Range = std::array<std::int64_t, 2>;

// A problem of some query rows, and the lse that the caller knows of all.
class SomeRows {
 public:
  SomeRows(ScoreProblem problem, std::vector<std::int64_t> rows, const Lse& lse)
      : problem_(std::move(problem)), rows_(std::move(rows)) {
    problem_.rows = rows_.data();
    problem_.row_count = static_cast<std::int64_t>(rows_.size());
    if (lse) choose(*lse);
  }
  SomeRows(const SomeRows&) = delete;
  SomeRows& operator=(const SomeRows&) = delete;

  const ScoreProblem& problem() const { return problem_; }
  // Of the rows of the loop, [batch, heads, row_count]; nullptr where it is not known.
  const double* lse() const { return known_ ? lse_.data() : nullptr; }

  // The same, computed where it is not known. GIL released by the caller.
  const double* computed_lse() {
    if (known_) return lse_.data();
    lse_.resize(static_cast<std::size_t>(heads() * problem_.row_count));
    SoftmaxForward want;
    want.lse = lse_.data();
    softmax_forward(problem_, want);
    return lse_.data();
  }

  // A result of that shape for each head.
  template <typename T>
  py::array_t<T> array(std::vector<std::int64_t> of_head) const {
    of_head.insert(of_head.begin(), {problem_.query.batch(), problem_.query.heads()});
    return new_array<T>(of_head);
  }

 private:
  std::int64_t heads() const { return problem_.query.batch() * problem_.query.heads(); }

  void choose(const RateArray& lse) {
    const std::int64_t length = problem_.query.length();
    require_shape("lse", lse, {problem_.query.batch(), problem_.query.heads(), length}, "batch, heads, query_length");
    lse_.reserve(static_cast<std::size_t>(heads() * problem_.row_count));
    for (std::int64_t head = 0; head < heads(); ++head) {
      for (const std::int64_t row : rows_) lse_.push_back(lse.data()[head * length + row]);
    }
    known_ = true;
  }

  ScoreProblem problem_;
  std::vector<std::int64_t> rows_;
  std::vector<double> lse_;
  bool known_ = false;
};

std::vector<std::int64_t> rows_between(std::int64_t start, std::int64_t stop) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(stop - start));
  std::iota(rows.begin(), rows.end(), start);
  return rows;
}

std::vector<std::int64_t> integers(const IndexArray& array) { return {array.data(), array.data() + array.size()}; }

py::array attention_rows(const py::array& query, const py::array& key, const py::array& rows,
                         const ScoreOptions& options, const Lse& lse) {
  std::vector<std::int64_t> chosen = integers(own_integers(rows));
  const ScoreProblem problem = make_problem(query, key, options);
  for (const std::int64_t row : chosen) {
    if (row < 0 || row >= problem.query.length()) {
      throw py::value_error("rows holds " + std::to_string(row) + "; query rows are 0 to " +
                            std::to_string(problem.query.length() - 1));
    }
  }
  SomeRows some(problem, std::move(chosen), lse);
  auto weights = some.array<float>({some.problem().row_count, problem.masks.key_length});
  float* data = weights.mutable_data();
  std::fill(data, data + weights.size(), 0.0F);
  {
    const CoreCall call;
    softmax_rows(some.problem(), some.computed_lse(), data);
  }
  return std::move(weights);
}

// Ranges and edges lie within the rows and the keys there are, shapes are positive: the Python package checks.
py::array attention_map(const py::array& query, const py::array& key, const ScoreOptions& options, Range shape,
                        Range row_range, Range key_range, const Lse& lse) {
  const SomeRows some(make_problem(query, key, options), rows_between(row_range[0], row_range[1]), lse);
  const Bins rows({0, some.problem().row_count}, shape[0]);
  const Bins keys({key_range[0], key_range[1]}, shape[1]);
  auto map = some.array<float>({rows.count(), keys.count()});
  float* data = map.mutable_data();
  {
    const CoreCall call;
    pooled_map(some.problem(), rows, keys, some.lse(), data);
  }
  return std::move(map);
}

py::array attention_segments(const py::array& query, const py::array& key, const ScoreOptions& options,
                             const IndexArray& row_edges, const IndexArray& key_edges, const Lse& lse) {
  std::vector<std::int64_t> edges = integers(row_edges);
  const std::int64_t start = edges.front();
  const SomeRows some(make_problem(query, key, options), rows_between(start, edges.back()), lse);
  for (std::int64_t& edge : edges) edge -= start;  // the rows of the loop
  const Bins rows(std::move(edges));
  const Bins keys(integers(key_edges));
  auto mass = some.array<float>({rows.count(), keys.count()});
  float* data = mass.mutable_data();
  {
    const CoreCall call;
    segment_mass(some.problem(), rows, keys, some.lse(), data);
  }
  return std::move(mass);
}

py::tuple attention_top_keys(const py::array& query, const py::array& key, const ScoreOptions& options,
                             std::int64_t count, Range rows, const Lse& lse) {
  const SomeRows some(make_problem(query, key, options), rows_between(rows[0], rows[1]), lse);
  auto keys = some.array<std::int64_t>({some.problem().row_count, count});
  auto weights = some.array<float>({some.problem().row_count, count});
  const TopKeys top{count, keys.mutable_data(), weights.mutable_data()};
  {
    const CoreCall call;
    top_keys(some.problem(), some.lse(), top);
  }
  return py::make_tuple(keys, weights);
}

py::array attention_distances(const py::array& query, const py::array& key, const ScoreOptions& options,
                              const IndexArray& edges, const Lse& lse) {
  const ScoreProblem problem = make_problem(query, key, options);
  const SomeRows some(problem, rows_between(0, problem.query.length()), lse);
  const Bins distances(integers(edges));
  auto mass = some.array<float>({distances.count()});
  float* data = mass.mutable_data();
  {
    const CoreCall call;
    distance_mass(some.problem(), distances, some.lse(), data);
  }
  return std::move(mass);
}

}  // namespace

void bind_maps(py::module_& module) {
  const auto query = py::arg("query");
  const auto key = py::arg("key");
  const auto options = py::arg("options");
  const auto lse = py::arg("lse") = py::none();
  module.def("attention_rows", &attention_rows, query, key, py::arg("rows"), options, lse);
  module.def("attention_map", &attention_map, query, key, options, py::arg("shape"), py::arg("rows"), py::arg("keys"),
             lse, "The map of a range of rows and of keys, mean-pooled to at most `shape`");
  module.def("attention_segments", &attention_segments, query, key, options, py::arg("row_edges"), py::arg("key_edges"),
             lse, "The sums of weights between segments");
  module.def("attention_top_keys", &attention_top_keys, query, key, options, py::arg("count"), py::arg("rows"), lse,
             "(keys, weights) of the `count` largest weights of a range of rows");
  module.def("attention_distances", &attention_distances, query, key, options, py::arg("edges"), lse,
             "Weights summed by distance, as a mean over rows");
}

}  // namespace rattention::bindings
