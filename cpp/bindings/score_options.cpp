#include "bindings/score_options.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/module.h"
#include "softmax/checks.h"
#include "softmax/rule_gravity.h"
#include "softmax/rule_softcap.h"

namespace py = pybind11;

namespace rattention::bindings {
namespace {

using Array = std::optional<py::array>;

void set_dense_mask(const py::array& mask, ScoreProblem& problem) {
  const TensorView& query = problem.query;
  problem.masks.dense = dense_mask(mask, {query.batch(), query.heads(), query.length(), problem.key.length()});
}

void set_discount(const py::array& log_discount, ScoreProblem& problem) {
  const TensorView& query = problem.query;
  problem.discount_per_query = log_discount.ndim() == 3;
  problem.log_discount = problem.discount_per_query
                             ? floats("log_discount", log_discount, {query.batch(), query.heads(), query.length()})
                             : floats("log_discount", log_discount, {query.heads()});
}

void set_gravity(const py::array& query_mass, const py::array& key_mass, const py::array& strength, float eps,
                 const Array& exponent, ScoreProblem& problem) {
  const std::int64_t heads = problem.query.heads();
  Gravity gravity;
  gravity.query_mass = mass_view("query_mass", query_mass);
  gravity.key_mass = mass_view("key_mass", key_mass);
  gravity.strength = floats("gravity", strength, {heads});
  gravity.eps = eps;
  if (exponent) gravity.exponent = floats("exponent", *exponent, {heads});
  problem.rule = std::make_shared<GravityRule>(gravity, problem);
}

void set_relative_bias(const py::array& table, ScoreProblem& problem) {
  const std::int64_t heads = problem.query.heads();
  const std::int64_t entries = table.ndim() == 2 ? table.shape(1) : 0;
  const float* data = floats("relative_bias", table, {heads, entries});
  problem.relative_bias = std::make_shared<RelativeBias>(data, heads, entries / 2);
}

// A new option is an argument here and a setting.
ScoreOptions make_options(std::int64_t left, std::int64_t right, std::int64_t query_offset, float scale,
                          const Array& key_mask, const Array& segments, const Array& attn_mask,
                          const Array& log_discount, const Array& block_ids, const Array& sinks,
                          const Array& relative_bias, std::optional<float> softcap, const Array& query_mass,
                          const Array& key_mass, const Array& gravity, float eps, const Array& exponent) {
  ScoreOptions options;
  const auto add = [&](std::function<void(ScoreProblem&)> set) { options.settings.push_back(std::move(set)); };
  add([=](ScoreProblem& problem) {
    problem.scale = scale;
    problem.masks.query_offset = query_offset;
    problem.masks.left = left;
    problem.masks.right = right;
  });
  if (key_mask) {
    add([mask = *key_mask](ScoreProblem& problem) {
      problem.masks.padding = padding_mask(mask, problem.query.batch(), problem.key.length());
    });
  }
  if (segments) {
    add([ids = own_integers(*segments)](ScoreProblem& problem) {
      const std::int64_t batch = problem.query.batch();
      set_segments(key_ids("segment_ids", ids, batch, problem.key.length()), batch, problem.masks);
    });
  }
  if (attn_mask) add([mask = *attn_mask](ScoreProblem& problem) { set_dense_mask(mask, problem); });
  if (log_discount) add([discount = *log_discount](ScoreProblem& problem) { set_discount(discount, problem); });
  if (block_ids) {
    add([ids = own_integers(*block_ids)](ScoreProblem& problem) {
      const std::int64_t batch = problem.query.batch();
      const std::int64_t* data = key_ids("block_ids", ids, batch, problem.key.length());
      problem.masks.blocks = runs_of(data, batch, problem.key.length(), 0);
    });
  }
  if (sinks) {
    add([own = *sinks](ScoreProblem& problem) { problem.sinks = floats("sinks", own, {problem.query.heads()}); });
  }
  if (relative_bias) add([table = *relative_bias](ScoreProblem& problem) { set_relative_bias(table, problem); });
  if (softcap) add([cap = *softcap](ScoreProblem& problem) { problem.rule = std::make_shared<SoftcapRule>(cap); });
  add([](ScoreProblem& problem) { check_positions(problem); });
  if (query_mass) {
    add([=](ScoreProblem& problem) { set_gravity(*query_mass, *key_mass, *gravity, eps, exponent, problem); });
  }
  return options;
}

}  // namespace

ScoreProblem make_problem(const py::array& query, const py::array& key, const ScoreOptions& options) {
  ScoreProblem problem = scaled_dot_product(tensor_view("query", query), tensor_view("key", key));
  for (const auto& set : options.settings) set(problem);
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
           py::arg("log_discount") = none, py::arg("block_ids") = none, py::arg("sinks") = none,
           py::arg("relative_bias") = none, py::arg("softcap") = none, py::arg("query_mass") = none,
           py::arg("key_mass") = none, py::arg("gravity") = none, py::arg("eps") = 0.0F, py::arg("exponent") = none);
}

}  // namespace rattention::bindings
