// Sliding-window attention, and RAttention decoding: a prompt at once, then token by token at constant memory.
#include <rattention/rattention/rattention_step.h>
#include <rattention/softmax/softmax_attention.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace ra = rattention;
constexpr int kHeads = 8, kKvHeads = 2, kTokens = 1000, kPrompt = 900, kDim = 64, kWindow = 127;

std::vector<float> random_rows(int heads) {
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> rows(heads * kTokens * kDim);
  for (float& x : rows) x = normal(generator);
  return rows;
}

// RAttention rows of the next tokens.
std::vector<float> decode(ra::RAttentionCache& cache, const ra::StepProblem& tokens) {
  std::vector<float> rows(kHeads * tokens.query.length() * kDim);
  ra::rattention_step(tokens, cache, ra::output_of(rows.data(), tokens.query.shape));
  return rows;
}

int main() {
  const std::vector<float> queries = random_rows(kHeads), keys = random_rows(kKvHeads), values = random_rows(kKvHeads);
  const ra::TensorView query = ra::view_of(queries.data(), {1, kHeads, kTokens, kDim});
  const ra::TensorView key = ra::view_of(keys.data(), {1, kKvHeads, kTokens, kDim});
  const ra::TensorView value = ra::view_of(values.data(), {1, kKvHeads, kTokens, kDim});

  ra::ScoreProblem problem = ra::scaled_dot_product(query, key);
  problem.masks.left = kWindow;  // a row sees its own key and the kWindow before it
  problem.masks.right = 0;
  std::vector<float> rows(queries.size());
  const ra::OutputView output = ra::output_of(rows.data(), query.shape);
  ra::softmax_forward(problem, {&value, &output});
  std::printf("sliding window: the first row, %g, is the first value, %g\n", rows[0], values[0]);

  const auto tokens = [&](int first, int last) {
    ra::StepProblem step{query.rows(first, last), key.rows(first, last), value.rows(first, last)};
    step.scale = problem.scale;
    step.norms.eps = 1e-6F;
    return step;
  };
  ra::RAttentionCache cache({1, kKvHeads, kDim, kDim, kWindow}), at_once = cache;
  const std::vector<float> all = decode(at_once, tokens(0, kTokens));
  decode(cache, tokens(0, kPrompt));
  float difference = 0;
  for (int t = kPrompt; t < kTokens; ++t) {
    const std::vector<float> row = decode(cache, tokens(t, t + 1));
    for (int i = 0; i < kHeads * kDim; ++i)
      difference = std::max(difference, std::fabs(row[i] - all[(i / kDim * kTokens + t) * kDim + i % kDim]));
  }
  std::printf("RAttention: %ld bytes of cache; token by token differs by %.1e\n", cache.bytes(), difference);
  return rows[0] == values[0] && difference < 1e-4F ? 0 : 1;
}
