#include "softmax/finished_row.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/numbers.h"
#include "kernels/rows.h"
#include "softmax/tile_operands.h"

namespace rattention {
namespace {

// log(e^a + e^b); b is finite.
double log_of_sum(double a, double b) {
  const double top = std::max(b, a);  // NaN where a is NaN
  return std::isnan(a) ? a : top + std::log1p(std::exp(std::min(a, b) - top));
}

double lse_of(const RowTotals& totals, float total) {
  return total == 0 ? -kInfinity : totals.top + std::log(static_cast<double>(total)) + totals.left_out;
}

// Returns which part of all weight the keys have.
float store_lse(const ScoreProblem& problem, const SoftmaxForward& want, RowPlace at, double of_keys) {
  const double of_all = problem.sinks != nullptr ? log_of_sum(of_keys, problem.sinks[at.head]) : of_keys;
  if (want.lse != nullptr) {
    want.lse[(at.batch * problem.query.heads() + at.head) * problem.row_count + at.row] = of_all;
  }
  return problem.sinks != nullptr ? static_cast<float>(std::exp(of_keys - of_all)) : 1.0F;
}

void store_output(const SoftmaxForward& want, RowPlace at, float* output) {
  const std::int64_t dim = want.value->dim();
  std::byte* stored = want.output->row(at.batch, at.head, at.row);
  store_row(output, dim, stored, want.output->dtype);
  if (want.output_rest == nullptr) return;
  for (std::int64_t d = 0; d < dim; ++d) {
    output[d] -= load_element(stored + d * size_of(want.output->dtype), want.output->dtype);
  }
  store_row(output, dim, want.output_rest->row(at.batch, at.head, at.row), want.output->dtype);
}

}  // namespace

RowShare finish_row(const ScoreProblem& problem, const SoftmaxForward& want, RowPlace at, const RowTotals& totals,
                    float* output, bool in_place) {
  // Scores that are -inf all of them have no softmax but beside a sink; a row that sees nothing is 0.
  const bool undefined = totals.total == 0 && totals.sees && problem.sinks == nullptr;
  const float total = undefined ? std::numeric_limits<float>::quiet_NaN() : totals.total;
  const bool needs_lse = want.lse != nullptr || problem.sinks != nullptr;
  const float kept = needs_lse ? store_lse(problem, want, at, lse_of(totals, total)) : 1.0F;
  if (total != 0) tile_kernels().scale(output, TileOperands::columns(want.value), kept / total);
  if (want.output != nullptr && !in_place) store_output(want, at, output);
  return {total, kept};
}

}  // namespace rattention
