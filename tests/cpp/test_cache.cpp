// Decoding with RAttention's cache: steps and prompts against the recurrence in float64.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "attention_problem.h"
#include "check.h"
#include "core/threads.h"
#include "rattention/rattention_step.h"

namespace {

std::atomic<std::int64_t> allocations{0};

}  // namespace

// Counted, so that a test can show that there are none.
void* operator new(std::size_t size) {
  ++allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using rattention::CacheConfig;
using rattention::DType;
using rattention::FeatureMap;
using rattention::OutputView;
using rattention::RAttentionCache;
using rattention::StepProblem;
using namespace rattention::test;

constexpr double kEps = 1e-8;
constexpr double kTheta = 1e4;

CacheConfig config_of(const Shape& shape, std::int64_t window, FeatureMap map = FeatureMap::softmax, double theta = 0) {
  return {
      shape.batch, shape.kv_heads, shape.dim, shape.value_dim, window, map, rattention::rotary_rates(shape.dim, theta),
      DType::f32};
}

// Of a long prompt the last rows and those at the edges of blocks: exact rows take most of the time.
bool compared(std::int64_t t, std::int64_t queries) { return queries < 1000 || t % 512 < 40 || t >= queries - 40; }

// The compared rows of one head by the definition; the others are NaN.
Matrix reference(const Inputs& inputs, const Shape& shape, const CacheConfig& config, std::int64_t b, std::int64_t h) {
  const std::int64_t kv_head = h / (shape.heads / shape.kv_heads);
  const Matrix query = inputs.query.matrix(b, h).cast<double>();
  const Matrix key = inputs.key.matrix(b, kv_head).cast<double>();
  const Matrix value = inputs.value.matrix(b, kv_head).cast<double>();
  const Matrix turned_query = turned(query, config.rope.empty() ? 0 : kTheta);
  const Matrix turned_key = turned(key, config.rope.empty() ? 0 : kTheta);
  const Matrix phi_query = features(query, config.feature_map);
  const Matrix phi_key = features(key, config.feature_map);
  Matrix state = Matrix::Zero(2 * shape.dim, shape.value_dim);
  const double missing = std::numeric_limits<double>::quiet_NaN();
  Matrix local = Matrix::Constant(shape.queries, shape.value_dim, missing);
  Matrix linear = local;
  for (std::int64_t t = 0; t < shape.queries; ++t) {
    const std::int64_t left = t - config.window - 1;
    if (left >= 0) state += phi_key.row(left).transpose() * value.row(left);
    if (!compared(t, shape.queries)) continue;
    const std::int64_t first = std::max<std::int64_t>(0, left + 1);
    const Row scores = turned_query.row(t) * turned_key.middleRows(first, t + 1 - first).transpose();
    local.row(t) = softmax(scores / std::sqrt(static_cast<double>(shape.dim))) * value.middleRows(first, t + 1 - first);
    linear.row(t) = phi_query.row(t) * state;
  }
  const Row ones = Row::Ones(shape.value_dim);
  return rms_norm(local, ones, kEps) + rms_norm(linear, ones, kEps);
}

StepProblem step_of(const Inputs& inputs, const Shape& shape, std::int64_t first, std::int64_t last) {
  StepProblem problem;
  problem.query = inputs.query.view().rows(first, last);
  problem.key = inputs.key.view().rows(first, last);
  problem.value = inputs.value.view().rows(first, last);
  problem.scale = 1.0F / std::sqrt(static_cast<float>(shape.dim));
  problem.norms.eps = static_cast<float>(kEps);
  return problem;
}

// Takes in tokens up to each of `ends` in turn and compares every row.
void compare(const Shape& shape, const CacheConfig& config, const std::vector<std::int64_t>& ends) {
  const Inputs inputs(shape);
  RAttentionCache cache(config);
  std::vector<Matrix> exact;
  for (std::int64_t h = 0; h < shape.batch * shape.heads; ++h) {
    exact.push_back(reference(inputs, shape, config, h / shape.heads, h % shape.heads));
  }
  std::int64_t first = 0;
  double worst = 0;
  for (const std::int64_t last : ends) {
    Array rows(shape.batch, shape.heads, last - first, shape.value_dim);
    rattention::rattention_step(step_of(inputs, shape, first, last), cache, rows.output());
    for (std::int64_t h = 0; h < shape.batch * shape.heads; ++h) {
      const Matrix got = rows.matrix(h / shape.heads, h % shape.heads).cast<double>();
      for (std::int64_t t = first; t < last; ++t) {
        if (!compared(t, shape.queries)) continue;
        const double error = (got.row(t - first) - exact[static_cast<std::size_t>(h)].row(t)).cwiseAbs().maxCoeff();
        CHECK(std::isfinite(error));
        worst = std::max(worst, error);
      }
    }
    first = last;
  }
  CHECK_CLOSE(worst, 0.0, 2e-5);
  for (const std::int64_t length : cache.lengths()) CHECK(length == shape.queries);
}

std::vector<std::int64_t> one_by_one(std::int64_t length) {
  std::vector<std::int64_t> ends;
  for (std::int64_t t = 1; t <= length; ++t) ends.push_back(t);
  return ends;
}

const Shape kShape{1, 4, 2, 90, 90, 18, 13};

void steps_and_prompts() {
  for (const std::int64_t window : {0, 1, 5, 31, 63, 64, 65, 89, 90, 180})
    for (const FeatureMap map : {FeatureMap::softmax, FeatureMap::relu})
      for (const double theta : {0.0, kTheta}) {
        const CacheConfig config = config_of(kShape, window, map, theta);
        compare(kShape, config, one_by_one(kShape.queries));
        compare(kShape, config, {90});
        compare(kShape, config, {40, 41, 42, 80, 90});
      }
}

void shapes() {
  for (const Shape& shape : {Shape{2, 2, 2, 40, 40, 1, 1}, Shape{1, 3, 1, 70, 70, 64, 64},
                             Shape{2, 2, 1, 50, 50, 33, 100}, Shape{1, 1, 1, 600, 600, 8, 8}}) {
    compare(shape, config_of(shape, 7), {1, 2, 3, shape.queries});
    compare(shape, config_of(shape, 520), {1, 36, shape.queries});
  }
}

// So long that a prompt takes blocks: of 8192 tokens, or of 1024 and at least a window where the first sees the ring.
void blocks() {
  const Shape prompt{1, 2, 1, 8400, 8400, 2, 24};
  for (const std::int64_t window : {0, 3, 400, 8191, 8192, 9000}) {
    compare(prompt, config_of(prompt, window, FeatureMap::softmax, kTheta), {prompt.queries});
  }
  const Shape rest{1, 2, 1, 3200, 3200, 2, 24};
  for (const std::int64_t window : {0, 3, 1022, 1023, 1024, 1500}) {
    compare(rest, config_of(rest, window), {40, 41, rest.queries});
  }
}

std::vector<float> one_step(RAttentionCache& cache, const Inputs& inputs, std::int64_t at) {
  Array rows(kShape.batch, kShape.heads, 1, kShape.value_dim);
  rattention::rattention_step(step_of(inputs, kShape, at, at + 1), cache, rows.output());
  return rows.values();
}

void copies_and_restoring() {
  const Inputs inputs(kShape);
  RAttentionCache cache(config_of(kShape, 20, FeatureMap::softmax, kTheta));
  for (std::int64_t t = 0; t < 50; ++t) one_step(cache, inputs, t);
  const RAttentionCache snapshot = cache;
  const std::vector<float> first = one_step(cache, inputs, 50);
  one_step(cache, inputs, 51);
  cache.restore(snapshot);
  CHECK(cache.lengths()[0] == 50);
  CHECK(one_step(cache, inputs, 50) == first);
}

void contents_there_and_back() {
  const Inputs inputs(kShape);
  const CacheConfig config = config_of(kShape, 20, FeatureMap::softmax, kTheta);
  RAttentionCache cache(config);
  for (std::int64_t t = 0; t < 50; ++t) one_step(cache, inputs, t);
  std::vector<std::int64_t> lengths(1);
  std::vector<float> keys(2 * 20 * 18), values(2 * 20 * 13), states(2 * 36 * 13), excesses(2 * 36 * 13);
  const rattention::CacheContents contents{lengths.data(), reinterpret_cast<std::byte*>(keys.data()),
                                           reinterpret_cast<std::byte*>(values.data()), states.data(), excesses.data()};
  cache.write(contents);
  CHECK(lengths[0] == 50);
  RAttentionCache other(config);
  other.read(contents);
  CHECK(one_step(other, inputs, 50) == one_step(cache, inputs, 50));
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{1} << 41}) {
    lengths[0] = bad;
    bool refused = false;
    try {
      other.read(contents);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    CHECK(refused);
    CHECK(other.lengths()[0] == 51);
  }
}

void a_step_allocates_nothing() {
  const Inputs inputs(kShape);
  for (const double theta : {0.0, kTheta}) {
    RAttentionCache cache(config_of(kShape, 5, FeatureMap::softmax, theta));
    Array rows(kShape.batch, kShape.heads, 1, kShape.value_dim);
    const OutputView output = rows.output();
    rattention::rattention_step(step_of(inputs, kShape, 0, 1), cache, output);
    const std::int64_t before = allocations;
    for (std::int64_t t = 1; t < 20; ++t) {
      rattention::rattention_step(step_of(inputs, kShape, t, t + 1), cache, output);
    }
    CHECK(allocations == before);
  }
}

std::string refusal(const CacheConfig& config) {
  try {
    const RAttentionCache cache(config);
  } catch (const std::invalid_argument& error) {
    return error.what();
  } catch (const std::bad_alloc&) {
    return "memory";
  }
  return "";
}

void what_is_refused() {
  CacheConfig config = config_of(kShape, -1);
  CHECK(refusal(config) == "window must be >= 0, got -1");
  config = config_of(kShape, std::int64_t{1} << 60);
  CHECK(refusal(config) == "memory");
  config = config_of(kShape, 3, FeatureMap::softmax, kTheta);
  config.head_dim = 7;
  CHECK(refusal(config).find("a rotary embedding needs a frequency and a factor") == 0);
  config.rope = {};
  config.batch = std::int64_t{1} << 40;
  CHECK(refusal(config).find("batch must be <=") == 0);

  const Inputs inputs(kShape);
  RAttentionCache cache(config_of(kShape, 3));
  Array rows(kShape.batch, kShape.heads, 1, kShape.value_dim);
  StepProblem problem = step_of(inputs, kShape, 0, 1);
  problem.key.dtype = DType::f16;
  std::string message;
  try {
    rattention::rattention_step(problem, cache, rows.output());
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  CHECK(message.find("must be float32 as the cache is, got float16") != std::string::npos);
  CHECK(cache.lengths()[0] == 0);
}

}  // namespace

int main() {
  return rattention::test::run({
      {"steps and prompts", steps_and_prompts},
      {"shapes", shapes},
      {"blocks", blocks},
      {"copies and restoring", copies_and_restoring},
      {"contents there and back", contents_there_and_back},
      {"a step allocates nothing", a_step_allocates_nothing},
      {"what is refused", what_is_refused},
  });
}
