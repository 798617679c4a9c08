// Masks, numbers and score rule, as all functions of the softmax family take them.
#pragma once

#include <pybind11/numpy.h>

#include <functional>
#include <vector>

#include "softmax/score_problem.h"

namespace rattention::bindings {

// What each option makes of a problem of query and key, in order. They hold the arrays that a problem points into, and
// check their shapes.
struct ScoreOptions {
  std::vector<std::function<void(ScoreProblem&)>> settings;
};

ScoreProblem make_problem(const pybind11::array& query, const pybind11::array& key, const ScoreOptions& options);

}  // namespace rattention::bindings
