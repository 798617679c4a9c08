// Operations on rows, compiled once per instruction set: feature maps, norms, rotary embedding, numbers of 16 bits,
// transposition and sums, each in a file row_<subject>.inl.
//
// "Padded" rows take whole vectors of tile_kernels().lanes floats; `padded` below is the row length rounded up to that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rattention {

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

  // out = x + y over n elements, a multiple of lanes.
  void (*sum)(const float* x, const float* y, std::int64_t n, float* out);
  // total += factor * x over n elements, a multiple of lanes, by Kahan's compensated summation: `excess` is what
  // rounding has added to the total beyond the true sum so far.
  void (*add_compensated)(const float* x, float factor, std::int64_t n, float* total, float* excess);
  // The same for total[rows][n] += factors[rows] * x.
  void (*add_outer_compensated)(const float* factors, std::int64_t rows, const float* x, std::int64_t n, float* total,
                                float* excess);
};

// The kernels of active_isa().
const RowKernels& row_kernels();

namespace detail {
extern const RowKernels kBaselineRowKernels;
extern const RowKernels kAvx2RowKernels;
extern const RowKernels kAvx512RowKernels;
}  // namespace detail

}  // namespace rattention
