// Whole arrays turned by rotary embedding, by the angles of positions or by tables of one's own.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace rattention {

// Which elements of a row turn together, and in which direction.
struct RotaryPairs {
  std::int64_t dims = 0;     // an even number of leading elements; those behind them are copied
  bool interleaved = false;  // pairs (0, 1), (2, 3), ... instead of (i, i + dims / 2)
  bool back = false;         // by minus the angle
};

// Rows of every head at positions first, first + 1, ...; first >= 0.
void rotate_rows(const TensorView& rows, const RotaryPairs& pairs, double theta, std::int64_t first,
                 const OutputView& out);

// Cosines and sines of every row's angles: [batch or 1][length][2][dims / 2].
struct RotaryTable {
  const float* entries = nullptr;
  bool per_batch = false;
};
void rotate_rows(const TensorView& rows, const RotaryPairs& pairs, const RotaryTable& table, const OutputView& out);

// Entries of a table for any positions, [n][2][dims / 2].
void fill_rotary_table(const std::int64_t* positions, std::int64_t n, std::int64_t dims, double theta, float* entries);

}  // namespace rattention
