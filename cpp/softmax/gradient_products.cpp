#include "softmax/gradient_products.h"

#include "softmax/bf16_gradients.h"
#include "softmax/float_gradients.h"

namespace rattention {

std::unique_ptr<GradientProducts> GradientProducts::make(const ScoreProblem& problem, const SoftmaxSaved& saved,
                                                         const Task& task, const GradientRows& rows, Scratch& scratch) {
  if (Bf16Gradients::possible(problem, saved))
    return std::make_unique<Bf16Gradients>(problem, saved, task, rows, scratch);
  return std::make_unique<FloatGradients>(problem, task, rows, scratch);
}

std::int64_t GradientProducts::floats(const ScoreProblem& problem, const SoftmaxSaved& saved, const Task& task) {
  const bool halves = Bf16Gradients::possible(problem, saved);
  return halves ? Bf16Gradients::floats(problem, saved, task) : FloatGradients::floats(problem, saved, task);
}

}  // namespace rattention
