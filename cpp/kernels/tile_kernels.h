// The arithmetic of the score loop, compiled once per instruction set.
//
// A tile of scores has query rows and key columns. Keys are packed in panels: `panel` keys side by side, one dimension
// after the other, so that a panel is [head_dim][panel] and short panels are filled with zeros. Values, queries and
// outputs are row-major float32.
//
// Kernels with bf16 in their name read an operand as the bits of bfloat16 numbers where it lies, for products with few
// rows: to widen it first would be most of the work. Others see float32 alone.
//
// Why these products are not oneDNN's: maxima are taken while scores are in registers, a panel is packed once for all
// rows of a task, and no rate is lost. On an AMD EPYC (Zen 5, AVX-512, two cores, depth 64) scores with their maxima
// ran at 99.5 % of the rate that fma_rate.h measures, weights times values at 100.4 %; products of oneDNN at 92-100 %.
#pragma once

#include <cstdint>

namespace rattention {

// What a row of weights p = e^(s - shift) adds up to.
struct RowSums {
  float weight;  // sum p
  float score;   // sum p * (s - shift)
};

struct GravitySums {
  float field;     // sum x * mass * u
  float pull;      // sum w
  float exponent;  // dL/dexponent, where there is one
};

// Factor, exponent and softening of score = factor * mass / (distance^exponent + eps).
struct PowerLaw {
  float factor;
  float exponent;
  float eps;
};

struct Deviations {
  float squares;
  float nonzero;
};

// Element (i, k) of a left operand lies at data[i * stride + k], or at data[k * stride + i] where it is transposed.
struct LeftOperand {
  const float* data;
  std::int64_t stride;
  bool transposed = false;
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

  // The same for n <= panel keys that are not packed, `dim` floats each with a row stride in floats: faster for a few
  // rows, for which packing is most of the work. dim is a multiple of lanes; scores from n to the panel's end are 0,
  // and maxima are those of whole vectors of keys.
  void (*score_keys)(const float* queries, std::int64_t rows, std::int64_t dim, const float* keys,
                     std::int64_t key_stride, std::int64_t n, float* scores, std::int64_t stride, float* maxima);

  void (*score_bf16_keys)(const float* queries, std::int64_t rows, std::int64_t dim, const std::uint16_t* keys,
                          std::int64_t key_stride, std::int64_t n, float* scores, std::int64_t stride, float* maxima);

  // As score_panel, with squared distances |query - key|^2, summed from differences: the product form would cancel for
  // near keys. Maxima are left alone.
  void (*distance_panel)(const float* queries, std::int64_t rows, std::int64_t dim, const float* panel, float* scores,
                         std::int64_t stride, float* maxima);

  // c[rows][columns] += a[rows][depth] . b[depth][columns]; columns is a multiple of lanes.
  void (*multiply_add)(LeftOperand a, std::int64_t rows, std::int64_t depth, const float* b, std::int64_t b_stride,
                       std::int64_t columns, float* c, std::int64_t c_stride);
  void (*multiply_add_bf16)(LeftOperand a, std::int64_t rows, std::int64_t depth, const std::uint16_t* b,
                            std::int64_t b_stride, std::int64_t columns, float* c, std::int64_t c_stride);

  // Row operations on n consecutive floats. Those that say "padded" may read and write up to lanes - 1 floats beyond;
  // the caller sets those to a neutral value first.
  float (*max)(const float* x, std::int64_t n);  // -inf where n is 0; ignores NaN
  float (*max_lane)(const float* maxima);        // of one vector
  // s <- e^(s - shift), padded: returns the sum. NaN stays NaN and -inf gives exactly 0.
  float (*exp)(float* s, std::int64_t n, float shift);
  RowSums (*exp_sums)(float* s, std::int64_t n, float shift);
  // s <- e^((s - shift) - rest), padded: for shifts that one float would round too much.
  void (*exp_twice_shifted)(float* s, std::int64_t n, float shift, float rest);
  float (*sum)(const float* x, std::int64_t n);
  // sum (x - center)^2 over the elements that are not 0, and how many those are.
  Deviations (*deviations)(const float* x, std::int64_t n, float center);
  void (*scale)(float* x, std::int64_t n, float factor);
  void (*add)(float* x, const float* y, std::int64_t n);
  // s[j] += slope * |first + j|
  void (*add_distance)(float* s, std::int64_t n, float first, float slope);
  // s[j] <- cap * tanh(s[j] / cap), cap > 0; slopes, if wanted, are the derivatives.
  void (*softcap)(float* s, std::int64_t n, float cap, float* slopes);
  // s[j] <- s[j]^power, power > 0. What is below 2^-126 counts as 0 but for power 1/2.
  void (*raise)(float* s, std::int64_t n, float power);
  // s[j] <- 1 / (s[j] + eps)
  void (*invert)(float* s, std::int64_t n, float eps);
  // s[j] <- factor * mass[j] * s[j]
  void (*gravitate)(float* s, const float* mass, std::int64_t n, float factor);
  // Backward of score = factor * mass[j] * u[j] with u = 1 / (squared distance + eps), given x = dL/dscore. Adds
  // factor * x * u to mass_gradient and replaces x by w = -2 factor x mass u^2, so that dL/dq = sum w (q - k).
  GravitySums (*gravity_gradient)(float* x, const float* u, const float* mass, std::int64_t n, float factor,
                                  float* mass_gradient);
  // The same of score = factor * mass[j] * u[j] with u = 1 / (distance^exponent + eps), given squared distances. A pair
  // at distance 0 pulls neither vector nor exponent.
  GravitySums (*power_law_gradient)(float* x, const float* squares, const float* mass, std::int64_t n, PowerLaw law,
                                    float* mass_gradient);
  // x[j] <- p[j] * (x[j] - delta), 0 where p[j] is 0 whatever x[j] is: gradients of scores from those of weights.
  void (*score_gradient)(float* x, const float* p, std::int64_t n, float delta);
  float (*dot)(const float* x, const float* y, std::int64_t n);
  // With the bits that score_panel gives for the same two rows.
  float (*dot_in_order)(const float* x, const float* y, std::int64_t n);
  // sum x[j] * |first + j|
  float (*sum_distance)(const float* x, std::int64_t n, float first);
  // s[j] <- -inf where visible[j] is 0 (else all bits set); how many are visible.
  std::int64_t (*hide)(float* s, const std::int32_t* visible, std::int64_t n);
  // visible[j] stays where flags[j] is not 0, else becomes 0.
  void (*and_bytes)(const std::uint8_t* flags, std::int64_t n, std::int32_t* visible);
  // visible[j] stays where x[j] is not `value`, else becomes 0.
  void (*and_differs)(const float* x, std::int64_t n, float value, std::int32_t* visible);
  bool (*all_finite)(const float* x, std::int64_t n);
  bool (*all_finite_bf16)(const std::uint16_t* x, std::int64_t n);
  // Lowest index whose element equals `value`, n if there is none.
  std::int64_t (*find)(const float* x, std::int64_t n, float value);
  // Lowest index whose element is larger than `value` or NaN, n if there is none.
  std::int64_t (*find_above)(const float* x, std::int64_t n, float value);
};

// The kernels of active_isa().
const TileKernels& tile_kernels();

// n rounded up to whole vectors.
inline std::int64_t padded(std::int64_t n) {
  const std::int64_t lanes = tile_kernels().lanes;
  return (n + lanes - 1) / lanes * lanes;
}

namespace detail {
extern const TileKernels kBaselineKernels;
extern const TileKernels kAvx2Kernels;
extern const TileKernels kAvx512Kernels;
extern const TileKernels kNeonKernels;
}  // namespace detail

}  // namespace rattention
