#include "bindings/score_options.h"

#include <pybind11/stl.h>

#include <vector>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "softmax/checks.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

Gravity make_gravity(const ScoreProblem& problem, const ScoreOptions& options) {
  Gravity gravity;
  gravity.query_mass = mass_view("query_mass", *options.query_mass);
  gravity.key_mass = mass_view("key_mass", *options.key_mass);
  const std::int64_t heads = problem.query.heads();
  gravity.strength = floats("gravity", *options.gravity, {heads});
  if (options.exponent) gravity.exponent = floats("exponent", *options.exponent, {heads});
  gravity.eps = options.eps;
  check_masses(problem, gravity);
  return gravity;
}

void set_discount(const py::array& log_discount, ScoreProblem* problem) {
  const TensorView& query = problem->query;
  problem->discount_per_query = log_discount.ndim() == 3;
  problem->log_discount = problem->discount_per_query
                              ? floats("log_discount", log_discount, {query.batch(), query.heads(), query.length()})
                              : floats("log_discount", log_discount, {query.heads()});
}

ScoreOptions make_options(std::int64_t left, std::int64_t right, std::int64_t query_offset, float scale,
                          std::optional<py::array> key_mask, std::optional<py::array> segment_ids,
                          std::optional<py::array> attn_mask, std::optional<py::array> log_discount,
                          std::optional<py::array> query_mass, std::optional<py::array> key_mass,
                          std::optional<py::array> gravity, float eps, std::optional<py::array> exponent) {
  if (segment_ids) segment_ids = own_integers(*segment_ids);
  return {left,
          right,
          query_offset,
          scale,
          std::move(key_mask),
          std::move(segment_ids),
          std::move(attn_mask),
          std::move(log_discount),
          std::move(query_mass),
          std::move(key_mass),
          std::move(gravity),
          eps,
          std::move(exponent)};
}

}  // namespace

ScoreProblem make_problem(const py::array& query, const py::array& key, const ScoreOptions& options) {
  const TensorView queries = tensor_view("query", query);
  ScoreProblem problem = scaled_dot_product(queries, tensor_view("key", key));
  problem.scale = options.scale;
  const std::int64_t batch = problem.query.batch();
  const std::int64_t keys = problem.key.length();
  Masks& masks = problem.masks;
  masks.query_offset = options.query_offset;
  masks.left = options.left;
  masks.right = options.right;
  if (options.key_mask) masks.padding = padding_mask(*options.key_mask, batch, keys);
  if (options.segment_ids) masks.segments = segment_ids(*options.segment_ids, batch, keys);
  if (options.attn_mask) {
    masks.dense = dense_mask(*options.attn_mask, {batch, problem.query.heads(), problem.query.length(), keys});
  }
  if (options.log_discount) set_discount(*options.log_discount, &problem);
  check_positions(problem);
  if (options.query_mass) problem.gravity = make_gravity(problem, options);
  return problem;
}

void bind_score_options(py::module_& module) {
  const py::object none = py::none();
  py::class_<ScoreOptions>(
      module, "ScoreOptions",
      "Masks, numbers and score rule of the softmax family; arrays are checked where they meet query "
      "and key.")
      .def(py::init(&make_options), py::kw_only(), py::arg("left"), py::arg("right"), py::arg("query_offset"),
           py::arg("scale"), py::arg("key_mask") = none, py::arg("segment_ids") = none, py::arg("attn_mask") = none,
           py::arg("log_discount") = none, py::arg("query_mass") = none, py::arg("key_mass") = none,
           py::arg("gravity") = none, py::arg("eps") = 0.0F, py::arg("exponent") = none);
}

}  // namespace rattention::bindings
