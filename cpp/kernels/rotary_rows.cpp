#include "kernels/rotary_rows.h"

#include <algorithm>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/rotary.h"
#include "kernels/row_kernels.h"
#include "kernels/rows.h"
#include "kernels/tile_kernels.h"

namespace rattention {
namespace {

constexpr std::int64_t kRowsPerTask = 256;

// Even and odd elements as two halves, and back.
void split_pairs(const float* row, std::int64_t half, float* halves) {
  for (std::int64_t i = 0; i < half; ++i) {
    halves[i] = row[2 * i];
    halves[half + i] = row[2 * i + 1];
  }
}

void join_pairs(const float* halves, std::int64_t half, float* row) {
  for (std::int64_t i = 0; i < half; ++i) {
    row[2 * i] = halves[i];
    row[2 * i + 1] = halves[half + i];
  }
}

// Calls turn(halves, b, i) for every row, with the pairs of its first dims elements as two halves.
template <typename Turn>
void for_each_row(const TensorView& rows, const RotaryPairs& pairs, const OutputView& out, const Turn& turn) {
  const std::int64_t dim = rows.dim();
  const std::int64_t half = pairs.dims / 2;
  const std::int64_t parts = ceil_div(rows.length(), kRowsPerTask);
  parallel_for(rows.batch() * rows.heads() * parts, [&](std::int64_t task) {
    const std::int64_t b = task / parts / rows.heads();
    const std::int64_t h = task / parts % rows.heads();
    const std::int64_t begin = task % parts * kRowsPerTask;
    Scratch& scratch = thread_scratch();
    scratch.reset(Scratch::round_up(padded(dim)) + Scratch::round_up(padded(pairs.dims)));
    float* row = scratch.take(padded(dim));
    float* halves = pairs.interleaved ? scratch.take(padded(pairs.dims)) : row;
    for (std::int64_t i = begin; i < std::min(begin + kRowsPerTask, rows.length()); ++i) {
      load_row(rows, b, h, i, row, padded(dim));
      if (pairs.interleaved) split_pairs(row, half, halves);
      turn(halves, b, i);
      if (pairs.interleaved) join_pairs(halves, half, row);
      store_row(row, dim, out.row(b, h, i), out.dtype);
    }
  });
}

}  // namespace

void rotate_rows(const TensorView& rows, const RotaryPairs& pairs, double theta, std::int64_t first,
                 const OutputView& out) {
  const Rotary rotary(rotary_rates(pairs.dims, theta), first, rows.length());
  for_each_row(rows, pairs, out, [&](float* halves, std::int64_t, std::int64_t i) {
    pairs.back ? rotary.undo(halves, first + i) : rotary.apply(halves, first + i);
  });
}

void rotate_rows(const TensorView& rows, const RotaryPairs& pairs, const RotaryTable& table, const OutputView& out) {
  const std::int64_t entry = pairs.dims;
  // The kernel adds two angles; the other one is 0.
  std::vector<float> none(static_cast<std::size_t>(entry), 0.0F);
  std::fill_n(none.begin(), entry / 2, 1.0F);
  const float direction = pairs.back ? -1.0F : 1.0F;
  for_each_row(rows, pairs, out, [&](float* halves, std::int64_t b, std::int64_t i) {
    const std::int64_t at = (table.per_batch ? b * rows.length() : 0) + i;
    row_kernels().rotate(halves, entry / 2, table.entries + at * entry, none.data(), direction);
  });
}

void fill_rotary_table(const std::int64_t* positions, std::int64_t n, std::int64_t dims, double theta, float* entries) {
  const RotaryRates rates = rotary_rates(dims, theta);
  parallel_for(ceil_div(n, kRowsPerTask), [&](std::int64_t task) {
    const std::int64_t begin = task * kRowsPerTask;
    for (std::int64_t i = begin; i < std::min(begin + kRowsPerTask, n); ++i) {
      rates.angles(positions[i], entries + i * dims);
    }
  });
}

}  // namespace rattention
