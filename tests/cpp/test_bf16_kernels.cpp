// The products of bfloat16 against float64, with whatever may lie around their operands. Passes with a note where the
// processor has no such products.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "core/tensor.h"
#include "kernels/bf16_kernels.h"
#include "kernels/rows.h"
#include "kernels/tile_kernels.h"

namespace {

using rattention::Bf16;
using rattention::Bf16Kernels;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

Bf16 rounded(float x) {
  Bf16 bits;
  rattention::store_row(&x, 1, reinterpret_cast<std::byte*>(&bits), rattention::DType::bf16);
  return bits;
}

float value_of(Bf16 bits) {
  return rattention::load_element(reinterpret_cast<const std::byte*>(&bits), rattention::DType::bf16);
}

std::vector<Bf16> normal(std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<Bf16> numbers(static_cast<std::size_t>(n));
  for (Bf16& x : numbers) x = rounded(distribution(generator));
  return numbers;
}

// [depth][columns] as [depth / 2][columns][2].
std::vector<Bf16> in_pairs(const std::vector<Bf16>& rows, std::int64_t columns) {
  std::vector<Bf16> pairs(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t row = i / static_cast<std::size_t>(columns);
    const std::size_t column = i % static_cast<std::size_t>(columns);
    pairs[(row / 2 * static_cast<std::size_t>(columns) + column) * 2 + row % 2] = rows[i];
  }
  return pairs;
}

double product(const Bf16* row, const std::vector<Bf16>& b, std::int64_t columns, std::int64_t column,
               std::int64_t depth) {
  double sum = 0;
  for (std::int64_t k = 0; k < depth; ++k) {
    sum += static_cast<double>(value_of(row[k])) *
           static_cast<double>(value_of(b[static_cast<std::size_t>(k * columns + column)]));
  }
  return sum;
}

std::int64_t whole_tiles(std::int64_t rows) {
  return (rows + Bf16Kernels::kRows - 1) / Bf16Kernels::kRows * Bf16Kernels::kRows;
}

// Rows beyond the last one hold NaN, which must stay there.
void scores_of_a_panel() {
  const Bf16Kernels& kernels = *rattention::bf16_kernels();
  constexpr std::int64_t kStride = 80;
  for (const std::int64_t dim : {32, 64, 160}) {
    const std::vector<Bf16> keys = normal(dim * Bf16Kernels::kPanel, 1);
    const std::vector<Bf16> panel = in_pairs(keys, Bf16Kernels::kPanel);
    for (const std::int64_t rows : {1, 15, 16, 17, 32, 33, 48}) {
      std::vector<Bf16> queries = normal(rows * dim, 2);
      queries.resize(static_cast<std::size_t>(whole_tiles(rows) * dim), rounded(kNaN));
      std::vector<float> scores(static_cast<std::size_t>(whole_tiles(rows) * kStride), 7.0F);
      std::vector<float> maxima(static_cast<std::size_t>(rows * 16), -1e30F);
      kernels.begin();
      kernels.score_panel(queries.data(), rows, dim, panel.data(), scores.data(), kStride, maxima.data());
      kernels.end();
      for (std::int64_t i = 0; i < rows; ++i) {
        float top = -1e30F;
        for (std::int64_t j = 0; j < Bf16Kernels::kPanel; ++j) {
          const float score = scores[static_cast<std::size_t>(i * kStride + j)];
          CHECK_CLOSE(score, product(&queries[static_cast<std::size_t>(i * dim)], keys, Bf16Kernels::kPanel, j, dim),
                      3e-5);
          top = std::max(top, score);
        }
        CHECK(rattention::tile_kernels().max_lane(&maxima[static_cast<std::size_t>(i * 16)]) == top);
        CHECK(scores[static_cast<std::size_t>(i * kStride + Bf16Kernels::kPanel)] == 7.0F);
      }
    }
  }
}

// The same for weights times values; the output has no room for rows beyond the last one.
void weights_times_values() {
  const Bf16Kernels& kernels = *rattention::bf16_kernels();
  for (const std::int64_t depth : {32, 96, 1024}) {
    for (const std::int64_t columns : {16, 32, 48, 80}) {
      const std::vector<Bf16> values = normal(depth * columns, 3);
      const std::vector<Bf16> pairs = in_pairs(values, columns);
      for (const std::int64_t rows : {1, 16, 31, 48, 50}) {
        std::vector<Bf16> weights = normal(rows * depth, 4);
        weights.resize(static_cast<std::size_t>(whole_tiles(rows) * depth), rounded(kNaN));
        std::vector<float> sums(static_cast<std::size_t>(rows * columns + 1), 3.0F);
        kernels.begin();
        kernels.multiply_add(weights.data(), depth, rows, depth, pairs.data(), columns, sums.data(), columns);
        kernels.end();
        double worst = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < columns; ++j) {
            const double want = 3 + product(&weights[static_cast<std::size_t>(i * depth)], values, columns, j, depth);
            worst =
                std::max(worst, std::fabs(static_cast<double>(sums[static_cast<std::size_t>(i * columns + j)]) - want));
          }
        }
        CHECK(worst < 1e-4);
        CHECK(sums.back() == 3.0F);
      }
    }
  }
}

void pairs_leave_out_what_is_not_finite() {
  const Bf16Kernels& kernels = *rattention::bf16_kernels();
  const std::vector<Bf16> numbers = normal(32, 5);
  for (const float bad : {kNaN, -kNaN, INFINITY, -INFINITY}) {
    for (int which = 0; which < 4; ++which) {
      std::vector<Bf16> rows = numbers;
      if ((which & 1) != 0) rows[13] = rounded(bad);
      if ((which & 2) != 0) rows[16] = rounded(bad);
      std::vector<Bf16> pairs(32);
      CHECK(kernels.pair_rows(rows.data(), rows.data() + 16, 16, pairs.data()) == which);
      for (std::size_t j = 0; j < 32; ++j) {
        const bool left_out = rows[j] != numbers[j];
        CHECK(pairs[j % 16 * 2 + j / 16] == (left_out ? 0 : numbers[j]));
      }
    }
  }
}

// In place, as the score loop does it, with a sum of weights before their rounding.
void weights_of_scores() {
  const Bf16Kernels& kernels = *rattention::bf16_kernels();
  for (const std::int64_t n : {1, 16, 17, 32, 40, 700}) {
    std::vector<float> scores(static_cast<std::size_t>(n + 16), -INFINITY);
    double sum = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      scores[static_cast<std::size_t>(j)] = -0.74F * static_cast<float>(j) + 4.0F;
      sum += std::exp2(static_cast<double>(scores[static_cast<std::size_t>(j)]) / 2 - 2);
    }
    const std::vector<float> before = scores;
    auto* weights = reinterpret_cast<Bf16*>(scores.data());
    CHECK_CLOSE(kernels.exp2(scores.data(), n, 0.5F, 4.0F, weights), sum, 5e-6);
    CHECK(value_of(weights[0]) == 1.0F);
    for (std::int64_t j = 0; j < n; ++j) {
      const double want = std::exp2(static_cast<double>(before[static_cast<std::size_t>(j)]) / 2 - 2);
      CHECK_CLOSE(value_of(weights[j]), want, want * 0x1.01p-8 + 1e-37);
    }
  }
}

}  // namespace

int main() {
  if (rattention::bf16_kernels() == nullptr) {
    std::printf("skipped: %s has no products of bfloat16\n", rattention::name_of(rattention::active_isa()));
    return 0;
  }
  return rattention::test::run({
      {"scores of a panel", scores_of_a_panel},
      {"weights times values", weights_times_values},
      {"pairs leave out what is not finite", pairs_leave_out_what_is_not_finite},
      {"weights of scores", weights_of_scores},
  });
}
