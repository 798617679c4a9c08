// The arithmetic of the score loop, compiled once per instruction set.
//
// A tile of scores has query rows and key columns. Keys are packed in panels: `panel` keys side by side, one dimension
// after the other, so that a panel is [head_dim][panel] and short panels are filled with zeros. Values, queries and
// outputs are row-major float32. Scores carry a factor log2(e), so that the softmax can use 2^x throughout.
#pragma once

#include <cstdint>

namespace rattention {

// What a row of weights p = 2^(s - shift) adds up to.
struct RowSums {
  float weight;  // sum p
  float score;   // sum p * (s - shift)
};

struct Deviations {
  float squares;
  float nonzero;
};

struct TileKernels {
  std::int64_t lanes;  // floats per vector
  std::int64_t panel;  // keys per packed panel
  std::int64_t block;  // rows the kernels take at a time; other counts work at some loss

  // Packs n <= panel keys of `dim` floats each (row stride in floats) as one panel.
  void (*pack_panel)(const float* keys, std::int64_t stride, std::int64_t n, std::int64_t dim, float* panel);

  // scores[rows][stride] = queries[rows][dim] . panel; maxima[rows][lanes] = the larger of itself and the scores, lane
  // by lane.
  void (*score_panel)(const float* queries, std::int64_t rows, std::int64_t dim, const float* panel, float* scores,
                      std::int64_t stride, float* maxima);

  // output[rows][columns] += weights[rows][n] . values[n][columns]; columns is a multiple of lanes and the row stride
  // of output.
  void (*accumulate)(const float* weights, std::int64_t weight_stride, std::int64_t rows, std::int64_t n,
                     const float* values, std::int64_t value_stride, std::int64_t columns, float* output);

  // Row operations on n consecutive floats. Those that say "padded" may read and write up to lanes - 1 floats beyond;
  // the caller sets those to a neutral value first.
  float (*max)(const float* x, std::int64_t n);  // padded; ignores NaN
  float (*max_lane)(const float* maxima);        // of one vector
  // s <- 2^(s - shift), padded: returns the sum. NaN stays NaN and -inf gives exactly 0.
  float (*exp2)(float* s, std::int64_t n, float shift);
  RowSums (*exp2_sums)(float* s, std::int64_t n, float shift);
  float (*sum)(const float* x, std::int64_t n);
  // sum (x - center)^2 over the elements that are not 0, and how many those are.
  Deviations (*deviations)(const float* x, std::int64_t n, float center);
  void (*scale)(float* x, std::int64_t n, float factor);
  void (*add)(float* x, const float* y, std::int64_t n);
  // s[j] += slope * |first + j|
  void (*add_distance)(float* s, std::int64_t n, float first, float slope);
  // s[j] <- -inf where visible[j] is 0 (else all bits set)
  void (*hide)(float* s, const std::int32_t* visible, std::int64_t n);
  bool (*all_finite)(const float* x, std::int64_t n);
  // Lowest index whose element equals `value`, n if there is none.
  std::int64_t (*find)(const float* x, std::int64_t n, float value);

  // Single-precision multiply-adds at full rate for about `seconds`; returns GFLOP/s of the calling thread.
  double (*fma_rate)(double seconds);
};

// The kernels of active_isa().
const TileKernels& tile_kernels();

namespace detail {
extern const TileKernels kBaselineKernels;
extern const TileKernels kAvx2Kernels;
extern const TileKernels kAvx512Kernels;
}  // namespace detail

}  // namespace rattention
