// The products of the score loop on bfloat16 operands, summed in float32, for processors that multiply bfloat16.
//
// The instructions multiply pairs: two elements that lie next to each other along the summed dimension. A right operand
// [depth][columns] therefore lies as [depth / 2][columns][2], a left operand [rows][depth] as it is. Depths are padded
// with zeros to multiples of `depth`. Denormal operands count as zero.
//
// Why these are not oneDNN's: on an Intel Xeon with AMX version 3.2 took AVX-512 for scores of depth 64, 105-120
// GFLOP/s a core, and its own tiles for weights times values alone, 0.8-1.8 TFLOP/s; these ran at 1.4-2.1 for both.
#pragma once

#include <cstdint>

namespace rattention {

using Bf16 = std::uint16_t;  // the bits of a number

struct Bf16Kernels {
  // Rows of a tile register: left operands and scores need the room for whole ones, and what lies in the rows beyond
  // may be read and written.
  static constexpr std::int64_t kRows = 16;
  static constexpr std::int64_t kDepth = 32;
  static constexpr std::int64_t kPanel = 64;  // keys, that of the float32 kernels beside it

  std::int64_t row_step;        // rows that are computed together
  std::int64_t rows_at_a_time;  // that multiply_add takes; others work at some loss

  // To be called on a thread before its products and after them. Between the two no other library may multiply there.
  void (*begin)();
  void (*end)();

  // scores[rows][stride] = queries[rows][dim] . panel [dim / 2][kPanel][2]; maxima[rows][16] = the larger of itself and
  // the scores, lane by lane.
  void (*score_panel)(const Bf16* queries, std::int64_t rows, std::int64_t dim, const Bf16* panel, float* scores,
                      std::int64_t stride, float* maxima);

  // c[rows][columns] += weights[rows][depth] . values [depth / 2][columns][2]; columns is a multiple of 16.
  void (*multiply_add)(const Bf16* weights, std::int64_t stride, std::int64_t rows, std::int64_t depth,
                       const Bf16* values, std::int64_t columns, float* c, std::int64_t c_stride);

  // pairs[n][2] = the rows side by side, n a multiple of 16. Infinities and NaN become 0 there; whether either row has
  // any of them is added up in the result as 1 and 2.
  int (*pair_rows)(const Bf16* row, const Bf16* next, std::int64_t n, Bf16* pairs);

  // pairs[n][2] = the rows side by side, rounded, n a multiple of 16.
  void (*round_pairs)(const float* row, const float* next, std::int64_t n, Bf16* pairs);

  // p = 2^(factor * (s - shift)) rounded to bfloat16; p may be the storage of s. Padded as TileKernels::exp2 is.
  // Returns the sum before the rounding: its errors cancel in sums, and lse is a number of its own. Where shift is the
  // largest score, p is exactly 1 there.
  float (*exp2)(const float* s, std::int64_t n, float factor, float shift, Bf16* p);
};

// The kernels of active_isa(), nullptr below avx512_bf16.
const Bf16Kernels* bf16_kernels();

// Begins and ends the products of a scope; nothing without kernels.
class Bf16Session {
 public:
  explicit Bf16Session(const Bf16Kernels* kernels) : kernels_(kernels) {
    if (kernels_ != nullptr) kernels_->begin();
  }
  ~Bf16Session() {
    if (kernels_ != nullptr) kernels_->end();
  }
  Bf16Session(const Bf16Session&) = delete;
  Bf16Session& operator=(const Bf16Session&) = delete;

 private:
  const Bf16Kernels* kernels_;
};

namespace detail {
extern const Bf16Kernels kAvx512Bf16Kernels;
extern const Bf16Kernels kAmxBf16Kernels;
}  // namespace detail

}  // namespace rattention
