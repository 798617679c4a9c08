// Masks, numbers and score rule, as all functions of the softmax family take them.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <optional>

#include "softmax/score_problem.h"

namespace rattention::bindings {

// Holds the arrays that a problem points into. Their shapes are checked where they meet query and key.
struct ScoreOptions {
  std::int64_t left = Masks::kUnlimited;
  std::int64_t right = Masks::kUnlimited;
  std::int64_t query_offset = 0;
  float scale = 1.0F;
  std::optional<pybind11::array> key_mask;
  std::optional<pybind11::array> segment_ids;
  std::optional<pybind11::array> attn_mask;
  std::optional<pybind11::array> log_discount;
  // Gravitational scores where given: all but the exponent.
  std::optional<pybind11::array> query_mass;
  std::optional<pybind11::array> key_mass;
  std::optional<pybind11::array> gravity;
  float eps = 0.0F;
  std::optional<pybind11::array> exponent;
};

ScoreProblem make_problem(const pybind11::array& query, const pybind11::array& key, const ScoreOptions& options);

}  // namespace rattention::bindings
