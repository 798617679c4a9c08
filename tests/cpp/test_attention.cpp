// The softmax forward pass against its definition in float64 with the whole map in memory.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "core/threads.h"
#include "softmax/softmax_attention.h"

namespace {

using namespace rattention::test;
using rattention::Masks;

struct Result {
  Array output;
  std::vector<double> lse;
};

Result attend(const rattention::ScoreProblem& problem, const Inputs& inputs, const Shape& shape) {
  Result result{Array(shape.batch, shape.heads, shape.queries, shape.value_dim),
                std::vector<double>(static_cast<std::size_t>(shape.batch * shape.heads * shape.queries))};
  const rattention::TensorView value = inputs.value.view();
  const rattention::OutputView output = result.output.output();
  rattention::SoftmaxForward want;
  want.value = &value;
  want.output = &output;
  want.lse = result.lse.data();
  rattention::softmax_forward(problem, want);
  return result;
}

void compare_head(const Result& got, const Inputs& inputs, const Matrix& scores, double sink, const Shape& shape,
                  std::int64_t b, std::int64_t h) {
  const Matrix value = inputs.value.matrix(b, h / (shape.heads / shape.kv_heads)).cast<double>();
  const auto output = got.output.matrix(b, h);
  double worst = 0;
  for (Eigen::Index i = 0; i < scores.rows(); ++i) {
    const double top = scores.cols() > 0 ? scores.row(i).maxCoeff() : -std::numeric_limits<double>::infinity();
    const double lse = got.lse[static_cast<std::size_t>((b * shape.heads + h) * shape.queries + i)];
    if (std::isinf(top)) {
      CHECK(output.row(i).cwiseAbs().maxCoeff() == 0.0F);
      CHECK(lse == sink);
      continue;
    }
    const Eigen::RowVectorXd weights = softmax(scores.row(i), sink);
    const Eigen::RowVectorXd want = weights * value;
    worst = std::max(worst, (output.row(i).cast<double>() - want).cwiseAbs().maxCoeff());
    CHECK_CLOSE(lse, top - std::log(weights.maxCoeff()), 2e-5);
  }
  CHECK(worst < 4e-6);
}

void compare(const rattention::ScoreProblem& problem, const Inputs& inputs, const Shape& shape) {
  const Result got = attend(problem, inputs, shape);
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      compare_head(got, inputs, reference_scores(problem, inputs, b, h), sink_of(problem, h), shape, b, h);
    }
}

void compare(const Shape& shape, const Masks& masks) {
  const Inputs inputs(shape);
  compare(problem_of(inputs, masks), inputs, shape);
}

// Around every tile edge (48 rows, 512 keys), with odd head dimensions, grouped heads and more queries than keys.
const Shape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 1},     {2, 4, 2, 47, 49, 8, 8},       {1, 2, 1, 97, 257, 33, 7},    {1, 3, 3, 513, 511, 64, 64},
    {2, 1, 1, 60, 20, 16, 80}, {1, 1, 1, 1025, 1025, 40, 40}, {1, 8, 2, 5, 1537, 128, 128}, {1, 1, 1, 3, 600, 256, 17},
};

void full_causal_and_windowed() {
  for (const Shape& shape : kShapes) {
    compare(shape, reach(Masks::kUnlimited, Masks::kUnlimited));
    compare(shape, reach(Masks::kUnlimited, 0));
    compare(shape, reach(0, 0));
    compare(shape, reach(31, 0));
    compare(shape, reach(100, 600));
  }
}

// Keys are scored where they lie: around every count of rows, vector, panel and tile of keys.
void few_rows() {
  for (const std::int64_t dim : {16, 64, 128})
    for (const std::int64_t keys : {1, 15, 17, 63, 64, 130, 1023, 1025})
      for (const std::int64_t queries : {1, 2, 4, 5}) {
        const Shape shape{1, 4, 2, queries, keys, dim, 16};
        compare(shape, reach(Masks::kUnlimited, Masks::kUnlimited));
        compare(shape, reach(100, 0));
      }
}

// A NaN among the keys reaches the rows that see it, and those alone.
void few_rows_and_a_nan() {
  const Shape shape{1, 1, 1, 2, 200, 64, 64};
  Inputs inputs(shape);
  inputs.key.data()[199 * 64] = std::numeric_limits<float>::quiet_NaN();
  const Result got = attend(problem_of(inputs, reach(Masks::kUnlimited, 0)), inputs, shape);
  CHECK(std::isfinite(got.lse[0]));
  CHECK(std::isnan(got.lse[1]));
}

void padding() {
  const Shape shape{2, 2, 1, 70, 530, 32, 32};
  const Padding padded(shape);
  Masks masks = reach(200, 0);
  masks.padding = padded.mask();
  compare(shape, masks);
}

void gravity() {
  const std::vector<float> exponents = {1.0F, 2.0F, 0.8F, 3.3F};
  for (const Shape& shape : {Shape{1, 1, 1, 1, 1, 1, 1}, Shape{2, 4, 2, 50, 50, 3, 8}, Shape{1, 2, 1, 97, 1100, 33, 7}})
    for (const std::int64_t mass_heads : {shape.heads, shape.kv_heads})
      for (const Masks& masks : {reach(Masks::kUnlimited, Masks::kUnlimited), reach(31, 0)}) {
        const Inputs inputs(shape);
        const Bodies bodies(shape, mass_heads);
        rattention::ScoreProblem problem = problem_of(inputs, masks);
        bodies.pull(&problem);
        compare(problem, inputs, shape);
        bodies.pull(&problem, exponents.data());
        compare(problem, inputs, shape);
      }
}

// Weights that decay with distance, of dot products and with gravity.
void discounts() {
  const Shape shape{1, 4, 2, 70, 130, 16, 16};
  const Inputs inputs(shape);
  const Bodies bodies(shape, shape.kv_heads);
  const std::vector<float> discounts = {-0.5F, 0.0F, -0.01F, -3.0F};
  rattention::ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 40));
  problem.log_discount = discounts.data();
  compare(problem, inputs, shape);
  bodies.pull(&problem);
  compare(problem, inputs, shape);
}

void packed_sequences_and_blocks_that_see_both_sides() {
  const Shape shape{2, 2, 1, 1100, 1100, 16, 16};
  for (const std::int64_t length : {1, 16, 47, 130, 1100})
    for (const bool packed : {false, true}) {
      Masks masks = reach(30, 0);
      masks.blocks = runs(shape, length, false);
      if (packed) masks.within = runs(shape, 2 * length, true);
      masks.key_length = shape.keys;
      compare(shape, masks);
    }
}

void softcap_bias_and_sinks() {
  const std::vector<float> discounts = {-0.5F, 0.0F, -0.01F, -3.0F};
  for (const std::int64_t length : {0, 3, 128, 2000}) {
    const Shape shape{1, 4, 2, 70, 1130, 16, 16};
    const Inputs inputs(shape);
    const HeadTerms terms(shape, length);
    rattention::ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 0));
    problem.sinks = terms.sinks.values().data();
    compare(problem, inputs, shape);
    problem.relative_bias = terms.table;
    compare(problem, inputs, shape);
    problem.rule = std::make_shared<rattention::SoftcapRule>(1.5F);
    problem.log_discount = discounts.data();
    compare(problem, inputs, shape);
  }
}

void a_bias_is_that_of_the_nearest_distance_there_is() {
  const Array table = Array::normal(1, 2, 7, 1, 3);
  const rattention::RelativeBias bias(table.values().data(), 2, 3);
  for (std::int64_t head = 0; head < 2; ++head)
    for (const std::int64_t distance : {-100000, -1030, -4, -3, -1, 0, 2, 3, 4, 1030, 100000}) {
      const std::int64_t entry = std::max<std::int64_t>(-3, std::min<std::int64_t>(3, distance)) + 3;
      CHECK(bias.at(head, distance) == table.values()[static_cast<std::size_t>(head * 7 + entry)]);
      std::vector<float> scores(300, 0.0F);
      bias.add(head, distance, 300, scores.data());
      for (std::int64_t j = 0; j < 300; ++j) {
        CHECK(scores[static_cast<std::size_t>(j)] == bias.at(head, distance + j));
      }
    }
}

void a_capped_score_is_exact() {
  for (const float cap : {0.5F, 30.0F})
    for (float x = -20; x < 20; x += 0.0371F) {
      float score[3] = {x, 1e-6F * x, std::numeric_limits<float>::infinity()};
      float slope[3];
      rattention::tile_kernels().softcap(score, 3, cap, slope);
      const double tanh = std::tanh(static_cast<double>(x) / static_cast<double>(cap));
      const double bound = static_cast<double>(cap);
      CHECK_CLOSE(score[0], bound * tanh, 4e-7 * std::abs(bound * tanh));
      CHECK_CLOSE(score[1], 1e-6 * static_cast<double>(x), 1e-12 * std::abs(static_cast<double>(x)));
      CHECK(score[2] == cap && slope[2] == 0.0F);
      const double cosh = std::cosh(static_cast<double>(x) / bound);
      CHECK_CLOSE(slope[0], 1 / (cosh * cosh), 2e-5 / (cosh * cosh));
    }
}

// Hidden values that are NaN stay hidden, whatever the sink.
void a_sink_leaves_a_row_without_keys_at_zero() {
  const Shape shape{1, 1, 1, 60, 20, 16, 16};
  Inputs inputs(shape);
  const float sink = 100;
  rattention::ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 0));
  problem.sinks = &sink;
  const Result got = attend(problem, inputs, shape);
  CHECK(got.lse[0] == 100.0 && got.output.matrix(0, 0).row(0).cwiseAbs().maxCoeff() == 0.0F);
  CHECK_CLOSE(got.lse[59], 100.0, 1e-6);
  CHECK(got.output.matrix(0, 0).row(59).cwiseAbs().maxCoeff() < 1e-30F);
}

void results_do_not_depend_on_threads() {
  const Shape shape{1, 4, 2, 700, 700, 64, 64};
  const Inputs inputs(shape);
  const rattention::ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 0));
  rattention::set_num_threads(1);
  const Result alone = attend(problem, inputs, shape);
  for (const int threads : {2, 3, 8}) {
    rattention::set_num_threads(threads);
    const Result together = attend(problem, inputs, shape);
    CHECK(together.output.values() == alone.output.values());
    CHECK(together.lse == alone.lse);
  }
  rattention::set_num_threads(0);
}

void some_rows_of_the_map() {
  const Shape shape{1, 2, 1, 40, 640, 24, 24};
  const Inputs inputs(shape);
  rattention::ScoreProblem problem = problem_of(inputs, reach(300, 0));
  const std::vector<std::int64_t> rows = {39, 0, 17};
  problem.rows = rows.data();
  problem.row_count = 3;
  std::vector<double> lse(6);
  rattention::SoftmaxForward want;
  want.lse = lse.data();
  rattention::softmax_forward(problem, want);
  std::vector<float> weights(static_cast<std::size_t>(2 * 3 * shape.keys));
  rattention::softmax_rows(problem, lse.data(), weights.data());
  for (std::int64_t h = 0; h < 2; ++h) {
    const Matrix scores = reference_scores(problem, inputs, 0, h);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const Eigen::RowVectorXd p = softmax(scores.row(rows[r]));
      const Eigen::Map<const Eigen::RowVectorXf> got(
          weights.data() + (static_cast<std::size_t>(h) * 3 + r) * static_cast<std::size_t>(shape.keys), shape.keys);
      CHECK((got.cast<double>() - p).cwiseAbs().maxCoeff() < 1e-6);
    }
  }
}

}  // namespace

int main() {
  return rattention::test::run({
      {"full, causal and windowed", full_causal_and_windowed},
      {"few rows", few_rows},
      {"few rows and a NaN", few_rows_and_a_nan},
      {"padding", padding},
      {"gravity", gravity},
      {"discounts", discounts},
      {"packed sequences and blocks that see both sides", packed_sequences_and_blocks_that_see_both_sides},
      {"softcap, bias and sinks", softcap_bias_and_sinks},
      {"a bias is that of the nearest distance there is", a_bias_is_that_of_the_nearest_distance_there_is},
      {"a capped score is exact", a_capped_score_is_exact},
      {"a sink leaves a row without keys at zero", a_sink_leaves_a_row_without_keys_at_zero},
      {"results do not depend on threads", results_do_not_depend_on_threads},
      {"some rows of the map", some_rows_of_the_map},
  });
}
