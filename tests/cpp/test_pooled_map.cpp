// The pooled map against means over the whole map in float64.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "core/threads.h"
#include "metrics/pooled_map.h"

namespace {

using namespace rattention::test;
using rattention::Bins;
using rattention::KeySpan;
using rattention::Masks;

std::vector<float> map_of(const rattention::ScoreProblem& problem, const Bins& rows, const Bins& keys) {
  const std::int64_t heads = problem.query.batch() * problem.query.heads();
  std::vector<float> map(static_cast<std::size_t>(heads * rows.count() * keys.count()), -1.0F);
  rattention::pooled_map(problem, rows, keys, nullptr, map.data());
  return map;
}

Matrix pooled(const Matrix& weights, const Bins& rows, const Bins& keys) {
  Matrix means(rows.count(), keys.count());
  for (Eigen::Index r = 0; r < means.rows(); ++r)
    for (Eigen::Index c = 0; c < means.cols(); ++c) {
      means(r, c) =
          weights.block(rows.first(r), keys.first(c), rows.last(r) - rows.first(r), keys.last(c) - keys.first(c))
              .mean();
    }
  return means;
}

// `range` of the query rows and `keys`, pooled to at most `height` by `width`.
void compare(const Shape& shape, const rattention::ScoreProblem& whole, const Inputs& inputs, KeySpan range,
             const Bins& keys, std::int64_t height) {
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(range.size()));
  std::iota(chosen.begin(), chosen.end(), range.first);
  rattention::ScoreProblem problem = whole;
  problem.rows = chosen.data();
  problem.row_count = range.size();
  const Bins rows({0, range.size()}, height);
  const std::vector<float> got = map_of(problem, rows, keys);
  for (std::int64_t h = 0; h < shape.batch * shape.heads; ++h) {
    const Matrix scores = reference_scores(whole, inputs, h / shape.heads, h % shape.heads);
    const Matrix weights = softmax_of_rows(scores).middleRows(range.first, range.size());
    const Matrix want = pooled(weights, rows, keys);
    for (Eigen::Index i = 0; i < want.size(); ++i) {
      const float mean = got[static_cast<std::size_t>(h * want.size() + i)];
      CHECK_CLOSE(mean, want.data()[i], 2e-6 * want.data()[i] + 1e-12);
      if (want.data()[i] == 0) CHECK(mean == 0.0F);
    }
  }
}

void compare_all(const Shape& shape, const Masks& masks, std::int64_t height, std::int64_t width) {
  const Inputs inputs(shape);
  const rattention::ScoreProblem problem = problem_of(inputs, masks);
  compare(shape, problem, inputs, {0, shape.queries}, Bins({0, shape.keys}, width), height);
  compare(shape, problem, inputs, {shape.queries / 3, shape.queries},
          Bins({shape.keys / 4, shape.keys - shape.keys / 5}, width), height);
}

const Shape kShapes[] = {{1, 1, 1, 1, 1, 4, 4}, {1, 4, 2, 50, 130, 16, 16}, {1, 2, 1, 900, 1100, 8, 8}};

void full_causal_and_windowed() {
  for (const Shape& shape : kShapes) {
    for (const std::int64_t size : {1, 7, 64, 2000}) {
      compare_all(shape, reach(Masks::kUnlimited, Masks::kUnlimited), size, 40);
      compare_all(shape, reach(Masks::kUnlimited, 0), size, size);
      compare_all(shape, reach(70, 0), 33, size);
    }
  }
}

void padding() {
  const Shape shape{2, 2, 1, 70, 530, 32, 32};
  const Padding padded(shape);
  Masks masks = reach(200, 0);
  masks.padding = padded.mask();
  compare_all(shape, masks, 16, 24);
}

void bins() {
  for (const std::int64_t size : {0, 1, 2, 7, 100, 101}) {
    for (const std::int64_t most : {1, 2, 7, 64, 100, 5000}) {
      const Bins cut({13, 13 + size}, most);
      CHECK(cut.count() == std::min(size, most));
      for (std::int64_t bin = 0; bin < cut.count(); ++bin) {
        CHECK(std::abs(cut.last(bin) - cut.first(bin) - size / cut.count()) <= 1);
        for (std::int64_t i = cut.first(bin); i < cut.last(bin); ++i) CHECK(cut.of(i) == bin);
      }
      CHECK(cut.first(0) == 13 && cut.last(cut.count() - 1) == 13 + size);
    }
  }
}

// A few bins of rows, so that every part of the rows adds to the same ones.
void same_bits_for_any_number_of_threads() {
  const Shape shape{1, 2, 1, 2000, 1500, 8, 8};
  const Inputs inputs(shape);
  const rattention::ScoreProblem problem = problem_of(inputs, reach(Masks::kUnlimited, 0));
  for (const std::int64_t height : {1, 3, 256}) {
    const Bins rows({0, shape.queries}, height), keys({0, shape.keys}, 20);
    rattention::set_num_threads(1);
    const std::vector<float> expected = map_of(problem, rows, keys);
    for (const int threads : {2, 4, 7}) {
      rattention::set_num_threads(threads);
      const std::vector<float> got = map_of(problem, rows, keys);
      CHECK(std::memcmp(got.data(), expected.data(), expected.size() * sizeof(float)) == 0);
    }
    rattention::set_num_threads(0);
  }
}

}  // namespace

int main() {
  return rattention::test::run({
      {"bins", bins},
      {"full, causal and windowed", full_causal_and_windowed},
      {"padding", padding},
      {"the same bits for any number of threads", same_bits_for_any_number_of_threads},
  });
}
