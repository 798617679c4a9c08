// The table of tile_kernels.h. Compiled once per instruction set; internal linkage only.
#include "kernels/tile_gravity.inl"
#include "kernels/tile_masks.inl"
#include "kernels/tile_products.inl"
#include "kernels/tile_rows.inl"
#include "kernels/tile_softcap.inl"
#include "kernels/tile_softmax.inl"

namespace rattention::detail {

const TileKernels RATTENTION_KERNELS = {
    kLanes,
    kPanel,
    kRows,
    pack_panel,
    score_panel,
    score_keys<float>,
    score_keys<std::uint16_t>,
    distance_panel,
    multiply_add_operand<float>,
    multiply_add_operand<std::uint16_t>,
    max,
    max_lane,
    exp_row,
    exp_sums,
    exp_twice_shifted,
    sum,
    deviations,
    scale,
    add,
    add_distance,
    softcap,
    raise,
    invert,
    gravitate,
    gravity_gradient,
    power_law_gradient,
    score_gradient,
    dot,
    dot_in_order,
    sum_distance,
    hide,
    and_bytes,
    and_differs,
    all_finite<float>,
    all_finite<std::uint16_t>,
    find,
    find_above,
};

}  // namespace rattention::detail
