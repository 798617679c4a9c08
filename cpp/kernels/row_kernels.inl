// The table of row_kernels.h. Compiled once per instruction set; internal linkage only.
#include "kernels/row_delta.inl"
#include "kernels/row_features.inl"
#include "kernels/row_halves.inl"
#include "kernels/row_norms.inl"
#include "kernels/row_rotary.inl"
#include "kernels/row_sums.inl"
#include "kernels/row_transpose.inl"

namespace rattention::detail {

const RowKernels RATTENTION_KERNELS = {
    softmax_features,
    relu_features,
    softmax_feature_columns,
    relu_feature_columns,
    softmax_feature_columns_gradient,
    relu_feature_columns_gradient,
    add_rms_norms,
    rms_norm_gradient,
    rotate,
    widen_halves<bfloat16_to_float>,
    widen_halves<float16_to_float>,
    narrow_halves<float_to_bfloat16>,
    narrow_halves<float_to_float16>,
    transpose_blocks,
    sum,
    product,
    add_compensated,
    add_outer_compensated,
    decay_sum,
    decay_compensated,
    running_products,
    scale_columns,
    dot_columns,
    decay_rates,
    decay,
    delta_token,
    scale_rows,
    multiply_rows,
    decayed_products,
    decayed_products_back,
    substitute,
    substitute_back,
};

}  // namespace rattention::detail
