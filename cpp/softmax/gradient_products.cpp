#include "softmax/gradient_products.h"

#include <algorithm>

#include "softmax/bf16_gradients.h"
#include "softmax/float_gradients.h"

namespace rattention {

GradientProducts::GradientProducts(const GradientRows& rows, Scratch& scratch)
    : rows_(rows), kernels_(tile_kernels()), maxima_(scratch.take(kBlockRows * kernels_.lanes)) {
  std::fill_n(maxima_, kBlockRows * kernels_.lanes, 0.0F);
}

std::unique_ptr<GradientProducts> GradientProducts::make(const ScoreProblem& problem, const SoftmaxSaved& saved,
                                                         const Task& task, const GradientRows& rows, Scratch& scratch) {
  if (Bf16Gradients::possible(problem, saved))
    return std::make_unique<Bf16Gradients>(problem, saved, task, rows, scratch);
  return std::make_unique<FloatGradients>(problem, saved, task, rows, scratch);
}

std::int64_t GradientProducts::floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task) {
  const auto floats = Bf16Gradients::possible(problem, saved) ? Bf16Gradients::floats : FloatGradients::floats;
  return Scratch::round_up(kBlockRows * tile_kernels().lanes) + floats(problem, saved, task);
}

}  // namespace rattention
