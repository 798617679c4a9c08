// Operations on rows, compiled once per instruction set: feature maps, norms, rotary embedding, numbers of 16 bits,
// transposition, sums and the delta rule, each in a file row_<subject>.inl.
//
// "Padded" rows take whole vectors of tile_kernels().lanes floats; `padded` below is the row length rounded up to that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rattention {

// A token of the delta rule: a state S [rows][columns] decays, update = beta * (value - read) or, where nothing is
// corrected, the value, and S += key^T update. Without a value nothing is added.
struct DeltaToken {
  const float* key;
  const float* query;
  const float* next;  // the key that reads S behind this token, or none; where nothing is corrected there is none
  const float* value;
  // One decay (step 0), or one per row (step 1): decay less 1, and all bits set; or the decay, and none. See
  // RowKernels::decay_rates. None where nothing decays.
  const float* rates;
  const std::int32_t* keeps;
  std::int64_t step;
  float beta;
  bool corrects;
};

struct RowKernels {
  // phi[rows][2 * padded] = f(x) and f(-x) of each row of x[rows][padded], f = softmax or relu over the first `dim`
  // elements; zeros beyond them in either half.
  void (*softmax_features)(const float* x, std::int64_t rows, std::int64_t dim, float* phi);
  void (*relu_features)(const float* x, std::int64_t rows, std::int64_t dim, float* phi);

  // The same for rows that lie in columns: phi[2 * dim][stride] of x[dim][stride], n of them, a multiple of lanes.
  // Needs no sums across a vector. x may be the second half of phi.
  void (*softmax_feature_columns)(const float* x, std::int64_t stride, std::int64_t n, std::int64_t dim, float* phi);
  void (*relu_feature_columns)(const float* x, std::int64_t stride, std::int64_t n, std::int64_t dim, float* phi);
  // grad_x[padded][stride] from phi and its gradient, both [2 * dim][stride]; grad_x may lie where grad_phi does.
  void (*softmax_feature_columns_gradient)(const float* phi, const float* grad_phi, std::int64_t stride, std::int64_t n,
                                           std::int64_t dim, float* grad_x);
  void (*relu_feature_columns_gradient)(const float* phi, const float* grad_phi, std::int64_t stride, std::int64_t n,
                                        std::int64_t dim, float* grad_x);

  // out = w x / rms(x) + v y / rms(y) with rms(x) = sqrt(mean(x^2) + eps) over n elements; rows padded with zeros.
  void (*add_rms_norms)(const float* x, const float* w, const float* y, const float* v, std::int64_t n, float eps,
                        float* out);
  // Backward of w x / rms(x): replaces x by its gradient and adds to that of w. Padded with zeros.
  void (*rms_norm_gradient)(const float* grad_out, const float* w, std::int64_t n, float eps, float* x, float* grad_w);

  // Turns each pair (x[i], x[half + i]) by the sum of two angles, each given as [2][half] cosines and sines; direction
  // 1 or -1.
  void (*rotate)(float* x, std::int64_t half, const float* one, const float* other, float direction);

  // n numbers of 16 bits, at any address, as float32.
  void (*widen_bfloat16)(const std::byte* halves, std::int64_t n, float* floats);
  void (*widen_float16)(const std::byte* halves, std::int64_t n, float* floats);
  // The way back, to nearest, ties to even; too much becomes infinite. NaN keeps its sign and the bits that fit, quiet.
  void (*narrow_bfloat16)(const float* floats, std::int64_t n, std::byte* halves);
  void (*narrow_float16)(const float* floats, std::int64_t n, std::byte* halves);

  // out[columns][out_stride] = transpose of x[rows][stride]; rows and columns are multiples of lanes.
  void (*transpose)(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, float* out,
                    std::int64_t out_stride);

  // out = x + y, and x * y, over n elements, a multiple of lanes; out may be x.
  void (*sum)(const float* x, const float* y, std::int64_t n, float* out);
  void (*product)(const float* x, const float* y, std::int64_t n, float* out);
  // total += factor * x over n elements, a multiple of lanes, by Kahan's compensated summation: `excess` is what
  // rounding has added to the total beyond the true sum so far.
  void (*add_compensated)(const float* x, float factor, std::int64_t n, float* total, float* excess);
  // The same for total[rows][n] += factors[rows] * x.
  void (*add_outer_compensated)(const float* factors, std::int64_t rows, const float* x, std::int64_t n, float* total,
                                float* excess);
  // out = factor * x + y, factor from 0 to 1; `out` may be x or y.
  void (*decay_sum)(const float* x, double factor, const float* y, std::int64_t n, float* out);
  // total = factor * total + x with compensation, as add_compensated().
  void (*decay_compensated)(const float* x, double factor, std::int64_t n, float* total, float* excess);
  // products[i][stride] + j = scale * factors[j + 1] * ... * factors[i] for j <= i < n, multiplied up in `row`, of n
  // elements; 0 where a float would be denormal, which would take more time than it is worth.
  void (*running_products)(const double* factors, std::int64_t n, float scale, double* row, float* products,
                           std::int64_t stride);
  // matrix[rows][stride] by columns: column i times factors[i], n of them, a multiple of lanes; a factor of 0 makes
  // zeros of anything.
  void (*scale_columns)(const float* factors, std::int64_t n, std::int64_t rows, std::int64_t stride, float* matrix);
  // sums[i] += the dot product of columns i of both matrices.
  void (*dot_columns)(const float* a, const float* b, std::int64_t n, std::int64_t rows, std::int64_t stride,
                      float* sums);

  // What the delta rule needs; columns is a multiple of lanes, and few rows are at most TileKernels::block.
  //
  // Rates of log gates <= 0 in place, n of them in whole vectors: where a gate is near 0 decay less 1, which is added
  // to what a state keeps, so that slow decay has all its digits; else the decay itself, so that strong decay has them.
  void (*decay_rates)(float* gates, std::int32_t* keeps, std::int64_t n);
  // state[rows][columns] decays so, rows at a stride.
  void (*decay)(float* state, std::int64_t stride, const float* rates, const std::int32_t* keeps, std::int64_t rows,
                std::int64_t columns);
  // out[columns] = query . S; read[columns] = key . S on entry of a token that corrects, and next . S on exit where
  // there is a next key; rows of S have a stride.
  void (*delta_token)(const DeltaToken& token, float* state, std::int64_t stride, std::int64_t rows,
                      std::int64_t columns, float* read, float* out);
  // out[rows][columns]: each row times a number of its own, or all times the same row; out may be x.
  void (*scale_rows)(const float* x, const float* factors, std::int64_t rows, std::int64_t columns, float* out);
  void (*multiply_rows)(const float* x, const float* factors, std::int64_t rows, std::int64_t columns, float* out);
  // Products of few rows and keys [n][columns], c_ij = sum_c rows_ic keys_jc steps_{j+1,c} ... steps_ic for j <= i, and
  // the way back: adds to the gradients of rows and keys.
  void (*decayed_products)(const float* rows, const float* keys, const float* steps, std::int64_t n,
                           std::int64_t columns, float* c, std::int64_t stride);
  void (*decayed_products_back)(const float* grad, std::int64_t stride, const float* rows, const float* keys,
                                const float* steps, std::int64_t n, std::int64_t columns, float* grad_rows,
                                float* grad_keys);
  // Row by row, few of them: error_i += sum_{j < i} ties[i][j] update_j, update_i = beta_i error_i.
  void (*substitute)(const float* ties, std::int64_t stride, const float* beta, std::int64_t rows, std::int64_t columns,
                     float* error, float* update);
  // From the last to the first: error_j += sum_{i > j} ties[i][j] update_i, update_j = beta_j error_j.
  void (*substitute_back)(const float* ties, std::int64_t stride, const float* beta, std::int64_t rows,
                          std::int64_t columns, float* error, float* update);
};

// The kernels of active_isa().
const RowKernels& row_kernels();

namespace detail {
extern const RowKernels kBaselineRowKernels;
extern const RowKernels kAvx2RowKernels;
extern const RowKernels kAvx512RowKernels;
extern const RowKernels kNeonRowKernels;
}  // namespace detail

}  // namespace rattention
