// Dense layers, layer norm and embeddings against float64.
#include <Eigen/Core>
#include <cmath>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "core/threads.h"
#include "nn/layers.h"
#include "nn/linear.h"

namespace {

using rattention::Activation;

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatMap = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

std::vector<float> normal(std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& x : numbers) x = normal(generator);
  return numbers;
}

double activated(double x, Activation activation) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::gelu:
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::gelu_tanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::relu:
      return std::max(0.0, x);
    case Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return x;
}

struct LinearShape {
  std::int64_t rows, in, out;
};

// Around the edges of row tiles (128) and panels (192 and 384 columns).
const LinearShape kLinearShapes[] = {{1, 1, 1},      {3, 5, 191},    {127, 64, 193},   {128, 33, 384},
                                     {129, 16, 767}, {300, 48, 768}, {257, 100, 1000}, {0, 4, 4}};

void compare_linear(const LinearShape& shape, Activation activation, bool biased) {
  const std::vector<float> x = normal(shape.rows * shape.in, 1);
  const std::vector<float> weight = normal(shape.out * shape.in, 2);
  const std::vector<float> bias = normal(shape.out, 3);
  const rattention::Linear layer(weight.data(), biased ? bias.data() : nullptr, shape.out, shape.in, activation);
  std::vector<float> y(static_cast<std::size_t>(shape.rows * shape.out));
  layer(x.data(), shape.rows, y.data());

  Matrix want = FloatMap(x.data(), shape.rows, shape.in).cast<double>() *
                FloatMap(weight.data(), shape.out, shape.in).cast<double>().transpose();
  if (biased) want.rowwise() += FloatMap(bias.data(), 1, shape.out).cast<double>().row(0);
  want = want.unaryExpr([activation](double value) { return activated(value, activation); });
  const double worst =
      shape.rows == 0 ? 0 : (FloatMap(y.data(), shape.rows, shape.out).cast<double>() - want).cwiseAbs().maxCoeff();
  CHECK(worst < 2e-5 * std::sqrt(static_cast<double>(shape.in)));
}

void dense_layers() {
  for (const LinearShape& shape : kLinearShapes)
    for (const Activation activation :
         {Activation::none, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::silu}) {
      compare_linear(shape, activation, true);
      compare_linear(shape, activation, false);
    }
}

std::vector<float> run_layer(const rattention::Linear& layer, const std::vector<float>& x, std::int64_t rows) {
  std::vector<float> y(static_cast<std::size_t>(rows * layer.out_features()));
  layer(x.data(), rows, y.data());
  return y;
}

void one_layer_serves_several_threads() {
  const std::vector<float> weight = normal(400 * 96, 4);
  const std::vector<float> x = normal(200 * 96, 5);
  rattention::set_num_threads(1);
  const std::vector<float> alone =
      run_layer(rattention::Linear(weight.data(), nullptr, 400, 96, Activation::gelu), x, 200);
  rattention::set_num_threads(3);
  const rattention::Linear layer(weight.data(), nullptr, 400, 96, Activation::gelu);
  std::vector<std::vector<float>> results(6);
  std::vector<std::thread> callers;
  for (auto& result : results) callers.emplace_back([&layer, &x, &result] { result = run_layer(layer, x, 200); });
  for (std::thread& caller : callers) caller.join();
  for (const auto& result : results) CHECK(result == alone);
  rattention::set_num_threads(0);
}

void layer_norm() {
  for (const std::int64_t width : {1, 7, 384, 1000})
    for (const bool with_residual : {false, true}) {
      const std::int64_t rows = 21;
      const std::vector<float> x = normal(rows * width, 6);
      const std::vector<float> residual = normal(rows * width, 7);
      const std::vector<float> weight = normal(width, 8);
      const std::vector<float> bias = normal(width, 9);
      const rattention::LayerNorm norm{weight.data(), bias.data(), width, 1e-12F};
      std::vector<float> y = x;
      norm(y.data(), with_residual ? residual.data() : nullptr, rows, y.data());
      Matrix sum = FloatMap(x.data(), rows, width).cast<double>();
      if (with_residual) sum += FloatMap(residual.data(), rows, width).cast<double>();
      for (Eigen::Index i = 0; i < rows; ++i) {
        const double mean = sum.row(i).mean();
        const double variance = (sum.row(i).array() - mean).square().mean();
        for (Eigen::Index j = 0; j < width; ++j) {
          const double want = weight[static_cast<std::size_t>(j)] * (sum(i, j) - mean) / std::sqrt(variance + 1e-12) +
                              bias[static_cast<std::size_t>(j)];
          CHECK_CLOSE(static_cast<double>(y[static_cast<std::size_t>(i * width + j)]), want, 2e-5);
        }
      }
    }
}

void embeddings() {
  const std::int64_t width = 5;
  const std::vector<float> words = normal(10 * width, 10);
  const std::vector<float> types = normal(2 * width, 11);
  const std::vector<std::int64_t> word_ids = {9, 0, 3};
  const std::vector<std::int64_t> type_ids = {0, 1, 1};
  std::vector<float> y(15);
  rattention::embedding_sum({{"words", words.data(), 10, word_ids.data()}, {"types", types.data(), 2, type_ids.data()}},
                            3, width, y.data());
  const auto entry = [width](const std::vector<float>& table, std::int64_t row, std::int64_t j) {
    return table[static_cast<std::size_t>(row * width + j)];
  };
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < width; ++j) {
      const auto at = static_cast<std::size_t>(i);
      CHECK_CLOSE(y[static_cast<std::size_t>(i * width + j)],
                  entry(words, word_ids[at], j) + entry(types, type_ids[at], j), 1e-6);
    }
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{10}}) {
    std::string message;
    try {
      rattention::embedding_sum({{"words", words.data(), 10, &bad}}, 1, width, y.data());
    } catch (const std::invalid_argument& error) {
      message = error.what();
    }
    CHECK(message.find("words") != std::string::npos);
    CHECK(message.find(std::to_string(bad)) != std::string::npos);
  }
}

}  // namespace

int main() {
  return rattention::test::run({
      {"dense layers", dense_layers},
      {"one layer serves several threads", one_layer_serves_several_threads},
      {"layer norm", layer_norm},
      {"embeddings", embeddings},
  });
}
