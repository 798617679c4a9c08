// See bf16_kernels.h: products by AMX's tile registers of 16 rows by 16 columns (or by 32 elements along the summed
// dimension). Internal linkage only, as in tile_kernels.inl.
#include "kernels/bf16_rows.inl"
#include "kernels/fma_rate.h"

namespace {

constexpr int64_t kTile = rattention::Bf16Kernels::kRows;  // rows and columns of a register of sums
constexpr int64_t kDepth = rattention::Bf16Kernels::kDepth;

struct alignas(64) TileShapes {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

const TileShapes kShapes;

void begin() { _tile_loadconfig(&kShapes); }
void end() { _tile_release(); }

// Sums of Rows by Columns tiles in tmm0 to tmm5 (tile (r, c) in tmm r + 3c): a[16 Rows][depth] . b[depth][16 Columns].
// Strides are in elements for a and in columns for b. Six sums leave one register for either operand. The names of
// registers cannot be computed, hence the list. Left operands whose rows lie far apart, each in cache lines of its own,
// are fetched `Ahead` elements before their turn: 4 % of the forward pass.
template <int Rows, int Columns, int Ahead>
inline void sum_tiles(const Bf16* a, int64_t a_stride, const Bf16* b, int64_t b_columns, int64_t depth) {
  asm volatile("" ::: "memory");  // GCC's tile loads do not say that they read memory
  _tile_zero(0);
  if (Rows > 1) _tile_zero(1);
  if (Rows > 2) _tile_zero(2);
  if (Columns > 1) _tile_zero(3);
  if (Columns > 1 && Rows > 1) _tile_zero(4);
  if (Columns > 1 && Rows > 2) _tile_zero(5);
  const auto a_bytes = static_cast<std::size_t>(2 * a_stride);
  const auto b_bytes = static_cast<std::size_t>(4 * b_columns);
  const Bf16* second = a + kTile * a_stride;
  const Bf16* third = second + kTile * a_stride;
  for (int64_t k = 0; k < depth; k += kDepth) {
    if (Ahead > 0) {
#pragma GCC unroll 48
      for (int64_t i = 0; i < Rows * kTile; ++i) __builtin_prefetch(a + i * a_stride + k + Ahead);
    }
    _tile_loadd(7, b + k * b_columns, b_bytes);
    _tile_loadd(6, a + k, a_bytes);
    _tile_dpbf16ps(0, 6, 7);
    if (Rows > 1) {
      _tile_loadd(6, second + k, a_bytes);
      _tile_dpbf16ps(1, 6, 7);
    }
    if (Rows > 2) {
      _tile_loadd(6, third + k, a_bytes);
      _tile_dpbf16ps(2, 6, 7);
    }
    if (Columns == 1) continue;
    _tile_loadd(7, b + k * b_columns + 2 * kTile, b_bytes);
    if (Rows > 2) _tile_dpbf16ps(5, 6, 7);
    if (Rows > 1) {
      _tile_loadd(6, second + k, a_bytes);
      _tile_dpbf16ps(4, 6, 7);
      _tile_loadd(6, a + k, a_bytes);
    }
    _tile_dpbf16ps(3, 6, 7);
  }
}

template <int Rows, int Columns>
inline void store_tiles(float* c, int64_t stride) {
  const auto bytes = static_cast<std::size_t>(4 * stride);
  float* second = c + kTile * stride;
  float* third = second + kTile * stride;
  _tile_stored(0, c, bytes);
  if (Rows > 1) _tile_stored(1, second, bytes);
  if (Rows > 2) _tile_stored(2, third, bytes);
  if (Columns > 1) _tile_stored(3, c + kTile, bytes);
  if (Columns > 1 && Rows > 1) _tile_stored(4, second + kTile, bytes);
  if (Columns > 1 && Rows > 2) _tile_stored(5, third + kTile, bytes);
}

template <int N>
struct Count {
  static constexpr int value = N;
};

// Calls visit(Count<tiles>, first row) for up to 3 tiles of rows at a time.
template <typename Visit>
void by_tiles(int64_t rows, Visit visit) {
  int64_t i = 0;
  for (; i + 2 * kTile < rows; i += 3 * kTile) visit(Count<3>{}, i);
  if (i + kTile < rows) return visit(Count<2>{}, i);
  if (i < rows) visit(Count<1>{}, i);
}

void multiply_panel(const Bf16* queries, int64_t rows, int64_t dim, const Bf16* panel, float* scores, int64_t stride) {
  by_tiles(rows, [&](auto tiles, int64_t i) {
    constexpr int kRows = decltype(tiles)::value;
    for (int64_t j = 0; j < kPanel; j += 2 * kTile) {
      sum_tiles<kRows, 2, 0>(queries + i * dim, dim, panel + 2 * j, kPanel, dim);
      store_tiles<kRows, 2>(scores + i * stride + j, stride);
    }
  });
}

// Through a buffer, because c has room for its rows alone.
template <int Rows, int Columns>
void add_tiles(const Bf16* a, int64_t stride, int64_t rows, int64_t depth, const Bf16* b, int64_t columns, float* c,
               int64_t c_stride) {
  constexpr int64_t kWidth = Columns * kTile;
  alignas(64) float sums[Rows * kTile * kWidth];
  sum_tiles<Rows, Columns, 2 * kDepth>(a, stride, b, columns, depth);
  store_tiles<Rows, Columns>(sums, kWidth);
  const int64_t last = rows < Rows * kTile ? rows : Rows * kTile;
  for (int64_t i = 0; i < last; ++i) {
    for (int64_t j = 0; j < kWidth; j += kLanes) {
      store(c + i * c_stride + j, load(c + i * c_stride + j) + load(sums + i * kWidth + j));
    }
  }
}

void multiply_add(const Bf16* weights, int64_t stride, int64_t rows, int64_t depth, const Bf16* values, int64_t columns,
                  float* c, int64_t c_stride) {
  by_tiles(rows, [&](auto tiles, int64_t i) {
    constexpr int kRows = decltype(tiles)::value;
    const Bf16* a = weights + i * stride;
    int64_t j = 0;
    for (; j + 2 * kTile <= columns; j += 2 * kTile) {
      add_tiles<kRows, 2>(a, stride, rows - i, depth, values + 2 * j, columns, c + i * c_stride + j, c_stride);
    }
    if (j < columns)
      add_tiles<kRows, 1>(a, stride, rows - i, depth, values + 2 * j, columns, c + i * c_stride + j, c_stride);
  });
}

// The scores of the panel are still in the first-level cache when their maxima are taken.
void score_panel(const Bf16* queries, int64_t rows, int64_t dim, const Bf16* panel, float* scores, int64_t stride,
                 float* maxima) {
  multiply_panel(queries, rows, dim, panel, scores, stride);
  for (int64_t i = 0; i < rows; ++i) {
    Vec top = load(maxima + i * kLanes);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kPanel; j += kLanes) top = max_or_second(load(scores + i * stride + j), top);
    store(maxima + i * kLanes, top);
  }
}

// Six sums, as sum_tiles() has, of registers alone; zeros take as long as other numbers.
void run_at_full_rate(int64_t turns) {
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < turns; ++i) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
    _tile_dpbf16ps(4, 6, 7);
    _tile_dpbf16ps(5, 6, 7);
  }
}

}  // namespace

namespace rattention::detail {

const FmaLoop kAmxBf16Loop = {run_at_full_rate, 6.0 * 2 * kTile* kTile* kDepth};

const Bf16Kernels kAmxBf16Kernels = {kTile,        3 * kTile, begin,       end,         score_panel,
                                     multiply_add, pair_rows, round_pairs, exp2_rounded};

}  // namespace rattention::detail
