// See bf16_kernels.h: products by vdpbf16ps, which adds the products of a pair to each float. Internal linkage only, as
// in tile_kernels.inl.
#include "kernels/bf16_rows.inl"
#include "kernels/fma_rate.h"

namespace {

constexpr int64_t kRows = 6;  // 24 sums of 4 vectors, a row of the right operand and a pair of the left: 29 registers
constexpr int64_t kPairs = 128;  // of the right operand at a time for all rows, from the first-level cache

// The tile registers need them.
void begin() {}
void end() {}

// Pairs move as floats do.
inline const float* pairs_of(const Bf16* p) { return reinterpret_cast<const float*>(p); }

inline Vec dot_pairs(Vec sum, Vec a, Vec b) {
  return reinterpret_cast<Vec>(
      _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}

// c[rows][columns] += or, for scores, = a . b; depth and strides count pairs.
struct Operands {
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  int64_t depth;
  float* c;
  int64_t c_stride;
  float* maxima;  // of scores, [rows][lanes]

  Operands row(int64_t i) const {
    return {a + i * a_stride,
            a_stride,
            b,
            b_stride,
            depth,
            c + i * c_stride,
            c_stride,
            maxima == nullptr ? nullptr : maxima + i * kLanes};
  }
};

template <int Rows, int Vectors, bool Scores>
inline void multiply_block(const Operands& x) {
  Vec sums[Rows][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sums[i][j] = Scores ? broadcast(0.0F) : load(x.c + i * x.c_stride + j * kLanes);
  }
  for (int64_t k = 0; k < x.depth; ++k) {
    Vec row[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) row[j] = load(x.b + k * x.b_stride + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const Vec pair = broadcast(x.a[i * x.a_stride + k]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sums[i][j] = dot_pairs(sums[i][j], pair, row[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(x.c + i * x.c_stride + j * kLanes, sums[i][j]);
    if (!Scores) continue;
    Vec top = load(x.maxima + i * kLanes);
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) top = max_or_second(sums[i][j], top);
    store(x.maxima + i * kLanes, top);
  }
}

template <int Vectors, bool Scores>
void multiply_rows(const Operands& x, int64_t rows) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) multiply_block<kRows, Vectors, Scores>(x.row(i));
  for (; i + 2 <= rows; i += 2) multiply_block<2, Vectors, Scores>(x.row(i));
  if (i < rows) multiply_block<1, Vectors, Scores>(x.row(i));
}

void score_panel(const Bf16* queries, int64_t rows, int64_t dim, const Bf16* panel, float* scores, int64_t stride,
                 float* maxima) {
  const int64_t pairs = dim / 2;
  multiply_rows<kPanel / kLanes, true>(
      {pairs_of(queries), pairs, pairs_of(panel), kPanel, pairs, scores, stride, maxima}, rows);
}

void multiply_add(const Bf16* weights, int64_t stride, int64_t rows, int64_t depth, const Bf16* values, int64_t columns,
                  float* c, int64_t c_stride) {
  for (int64_t k = 0; k < depth / 2; k += kPairs) {
    const int64_t pairs = depth / 2 - k < kPairs ? depth / 2 - k : kPairs;
    const auto from = [&](int64_t j) -> Operands {
      return {pairs_of(weights) + k,
              stride / 2,
              pairs_of(values) + k * columns + j,
              columns,
              pairs,
              c + j,
              c_stride,
              nullptr};
    };
    int64_t j = 0;
    for (; j + 4 * kLanes <= columns; j += 4 * kLanes) multiply_rows<4, false>(from(j), rows);
    for (; j + 2 * kLanes <= columns; j += 2 * kLanes) multiply_rows<2, false>(from(j), rows);
    if (j < columns) multiply_rows<1, false>(from(j), rows);
  }
}

// As many sums as a block has, of registers alone.
void run_at_full_rate(int64_t turns) {
  constexpr int kSums = 4 * kRows;
  Vec sums[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums[i] = broadcast(static_cast<float>(i));  // equal sums would be computed once
  Vec pair = broadcast(1.0F);
  for (int64_t i = 0; i < turns; ++i) {
    asm volatile("" : "+v"(pair));  // or the products would be taken out of the loop
#pragma GCC unroll 24
    for (Vec& sum : sums) sum = dot_pairs(sum, pair, pair);
  }
#pragma GCC unroll 24
  for (Vec& sum : sums) asm volatile("" : : "v"(sum));
}

}  // namespace

namespace rattention::detail {

const FmaLoop kAvx512Bf16Loop = {run_at_full_rate, 4.0 * kRows * 4 * kLanes};

const Bf16Kernels kAvx512Bf16Kernels = {1,         kRows,       begin,       end, score_panel, multiply_add,
                                        pair_rows, round_pairs, exp2_rounded};

}  // namespace rattention::detail
