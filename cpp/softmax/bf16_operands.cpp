#include "softmax/bf16_operands.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows.h"
#include "softmax/bf16_pairs.h"
#include "softmax/score_rule.h"

namespace rattention {
namespace {

constexpr std::int64_t kStep = Bf16Kernels::kDepth;

}  // namespace

bool Bf16Operands::possible(const ScoreProblem& problem, const TensorView* value) {
  const auto is_bfloat16 = [](const TensorView& view) { return view.dtype == DType::bf16; };
  return bf16_kernels() != nullptr && !problem.few_rows() && problem.rule->product() == PairProduct::dot &&
         problem.rotary == nullptr && value != nullptr && is_bfloat16(problem.query) && is_bfloat16(problem.key) &&
         is_bfloat16(*value);
}

std::int64_t Bf16Operands::floats(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows) {
  const auto up = Scratch::round_up;
  const std::int64_t dim = pairs_of_row(problem.query.dim());
  const std::int64_t panel = tile_kernels().panel;
  return up(rows_with_room(query_rows) * dim) + up((kTileKeys + panel) * dim) + up(panel * dim) +
         up(kTileKeys / 2 * columns(value)) + up(columns(value));
}

Bf16Operands::Bf16Operands(const ScoreProblem& problem, const TensorView* value, std::int64_t query_rows,
                           Scratch& scratch)
    : TileOperands(problem, value),
      products_(*bf16_kernels()),
      session_(&products_),
      dim_(pairs_of_row(problem.query.dim())),
      queries_(scratch.take(rows_with_room(query_rows) * dim_)),
      panels_(scratch.take((kTileKeys + kernels_.panel) * dim_)),
      staging_(scratch.take(kernels_.panel * dim_)),
      values_(scratch.take(kTileKeys / 2 * columns_)) {
  value_row_ = scratch.take(columns_);
}

KeySpan Bf16Operands::whole_panels(KeySpan span) const {
  return {span.first / kernels_.panel * kernels_.panel, span.last};
}

float Bf16Operands::unit() const { return std::fabs(problem_.scale); }

void Bf16Operands::load_queries(std::int64_t batch, const QueryBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    copy_halves(problem_.query, batch, block.head, problem_.query_row(block.first + r),
                halves(queries_ + (block.slot + r) * dim_), 2 * dim_);
  }
  if (!std::signbit(problem_.scale)) return;
  constexpr Bf16 kSign = 0x8000;
  Bf16* first = halves(queries_ + block.slot * dim_);
  std::transform(first, first + 2 * block.rows * dim_, first, [](Bf16 x) { return static_cast<Bf16>(x ^ kSign); });
}

// Pairs move as floats do.
void Bf16Operands::pack_keys() {
  float* panel = panels_;
  for (std::int64_t key = keys_.first; key < keys_.last; key += kernels_.panel, panel += kernels_.panel * dim_) {
    const std::int64_t n = std::min(kernels_.panel, keys_.last - key);
    for (std::int64_t i = 0; i < n; ++i) {
      copy_halves(problem_.key, batch_, kv_head_, key + i, halves(staging_ + i * dim_), 2 * dim_);
    }
    kernels_.pack_panel(staging_, dim_, n, dim_, panel);
  }
}

void Bf16Operands::score_panel(const QueryBlock& block, KeySpan rows, std::int64_t offset, float* tile,
                               float* maxima) const {
  const std::int64_t step = products_.row_step;
  const std::int64_t first = rows.first / step * step;  // so that the last register ends in the block
  products_.score_panel(halves(queries_ + (block.slot + first) * dim_), rows.last - first, 2 * dim_,
                        halves(panels_ + offset * dim_), tile + first * kTileStride + offset, kTileStride,
                        maxima + first * kernels_.lanes);
}

float Bf16Operands::to_weights(float* row, std::int64_t offset, std::int64_t n, float unit, float shift) const {
  return products_.exp2(row + offset, n, unit * kLog2E, shift, halves(row) + offset);
}

void Bf16Operands::clear_weights(float* row, std::int64_t first, std::int64_t last) const {
  std::fill(halves(row) + first, halves(row) + last, Bf16{0});
}

float Bf16Operands::weight_at(const float* row, std::int64_t offset) const {
  return load_element(reinterpret_cast<const std::byte*>(halves(row) + offset), DType::bf16);
}

void Bf16Operands::pack_values() {
  Bf16* row = halves(value_row_);
  Bf16* next = row + columns_;
  for (std::int64_t j = 0; j < keys_.size(); j += 2) {
    copy_halves(*value_, batch_, kv_head_, keys_.first + j, row, columns_);
    if (j + 1 < keys_.size()) {
      copy_halves(*value_, batch_, kv_head_, keys_.first + j + 1, next, columns_);
    } else {
      std::fill(next, next + columns_, Bf16{0});
    }
    const int not_finite = products_.pair_rows(row, next, columns_, halves(values_ + j / 2 * columns_));
    if ((not_finite & 1) != 0) not_finite_.push_back(keys_.first + j);
    if ((not_finite & 2) != 0) not_finite_.push_back(keys_.first + j + 1);
  }
  const std::int64_t pairs = ceil_div(keys_.size(), 2);
  const std::int64_t steps = ceil_div(keys_.size(), kStep);
  std::fill(values_ + pairs * columns_, values_ + steps * (kStep / 2) * columns_, 0.0F);
}

KeySpan Bf16Operands::whole_steps(KeySpan keys) const {
  const std::int64_t before = keys.first - keys_.first;
  const std::int64_t until = keys.last - keys_.first;
  return {keys_.first + before / kStep * kStep, keys_.first + ceil_div(until, kStep) * kStep};
}

void Bf16Operands::add_values(const float* weights, std::int64_t rows, KeySpan keys, float* output) const {
  const std::int64_t first = keys.first - keys_.first;
  products_.multiply_add(halves(weights) + first, 2 * kTileStride, rows, keys.size(),
                         halves(values_ + first / 2 * columns_), columns_, output, columns_);
}

}  // namespace rattention
