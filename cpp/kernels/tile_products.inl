// See tile_kernels.h: products of a tile, and the packing of their operands.
#pragma once

#include <cstdint>

#include "kernels/simd.h"
#include "kernels/tile_kernels.h"

namespace {

using std::int64_t;

// Register blocking: of the 32 registers that AVX-512 and NEON have, 6 rows by 4 vectors fill 24 with sums, 4 with a
// row of the right operand and 1 with a number of the left; of the 16 elsewhere, 6 by 2 fill 12, 2 and 1. All keep more
// multiply-adds in flight than latency times ports: 8 on x86-64, 8 to 16 on Arm. 8 rows by 3 vectors would have as many
// sums, and load 11 times for them instead of 10.
constexpr int kRows = 6;
constexpr int kVectors = kRegisters == 32 ? 4 : 2;
constexpr int64_t kPanel = kVectors * kLanes;
// Values stream from the second-level cache; packed keys are in the first by the second group of rows.
constexpr int64_t kAhead = 4;
// Where rows are few, values and keys come from memory, once each.
constexpr int64_t kFarAhead = 32;

template <int N>
struct Count {
  static constexpr int value = N;
};

enum class Product { scores, distances, sums };

// A LeftOperand whose side is fixed when the kernels are compiled: a stride known to be 1 saves registers that the sums
// need.
template <bool Transposed>
struct Left {
  const float* data;
  int64_t stride;

  float at(int64_t i, int64_t k) const { return Transposed ? data[k * stride + i] : data[i * stride + k]; }
  Left from_row(int64_t i) const { return {data + (Transposed ? i : i * stride), stride}; }
};

// Right operands are float32 or bfloat16. c[Rows][Vectors * lanes] = a . b for scores, c += a . b for sums, and sum_k
// (a_ik - b_kj)^2 for distances. Scores are taken into maxima [Rows][lanes] while they are in registers.
template <int Rows, int Vectors, Product Kind, bool Transposed, typename Element>
inline void multiply_block(Left<Transposed> a, const Element* b, int64_t b_stride, int64_t depth, float* c,
                           int64_t c_stride, float* maxima) {
  Vec sums[Rows][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      sums[i][j] = Kind == Product::sums ? load(c + i * c_stride + j * kLanes) : broadcast(0.0F);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec row[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) row[j] = load(b + k * b_stride + j * kLanes);
    if (Kind == Product::sums) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        __builtin_prefetch(b + (k + (Rows < 4 ? kFarAhead : kAhead)) * b_stride + j * kLanes);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const Vec factor = broadcast(a.at(i, k));
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        if (Kind == Product::distances) {
          const Vec difference = factor - row[j];
          sums[i][j] += difference * difference;
        } else {
          sums[i][j] += factor * row[j];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(c + i * c_stride + j * kLanes, sums[i][j]);
    if (Kind != Product::scores) continue;
    Vec top = load(maxima + i * kLanes);
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) top = max_or_second(sums[i][j], top);
    store(maxima + i * kLanes, top);
  }
}

template <int Vectors, Product Kind, bool Transposed, typename Element>
void multiply_rows(Left<Transposed> a, int64_t rows, const Element* b, int64_t b_stride, int64_t depth, float* c,
                   int64_t c_stride, float* maxima) {
  int64_t i = 0;
  const auto block = [&](auto rows_constant) {
    constexpr int kCount = decltype(rows_constant)::value;
    multiply_block<kCount, Vectors, Kind>(a.from_row(i), b, b_stride, depth, c + i * c_stride, c_stride,
                                          maxima + i * kLanes);
    i += kCount;
  };
  while (i + kRows <= rows) block(Count<kRows>{});
  if (i + 4 <= rows) block(Count<4>{});
  while (i + 2 <= rows) block(Count<2>{});
  if (i < rows) block(Count<1>{});
}

// c[rows][columns] += a . b, as many columns at a time as registers allow.
template <int Vectors, bool Transposed, typename Element>
int64_t multiply_add_columns(Left<Transposed> a, int64_t rows, int64_t depth, const Element* b, int64_t b_stride,
                             int64_t columns, float* c, int64_t c_stride, int64_t column) {
  for (; column + Vectors * kLanes <= columns; column += Vectors * kLanes) {
    multiply_rows<Vectors, Product::sums>(a, rows, b + column, b_stride, depth, c + column, c_stride, c);
  }
  return column;
}

template <bool Transposed, typename Element>
void multiply_add(Left<Transposed> a, int64_t rows, int64_t depth, const Element* b, int64_t b_stride, int64_t columns,
                  float* c, int64_t c_stride) {
  int64_t column = multiply_add_columns<kVectors>(a, rows, depth, b, b_stride, columns, c, c_stride, 0);
  if constexpr (kVectors > 3)
    column = multiply_add_columns<3>(a, rows, depth, b, b_stride, columns, c, c_stride, column);
  column = multiply_add_columns<2>(a, rows, depth, b, b_stride, columns, c, c_stride, column);
  multiply_add_columns<1>(a, rows, depth, b, b_stride, columns, c, c_stride, column);
}

template <typename Element>
void multiply_add_operand(rattention::LeftOperand a, int64_t rows, int64_t depth, const Element* b, int64_t b_stride,
                          int64_t columns, float* c, int64_t c_stride) {
  if (a.transposed) {
    multiply_add(Left<true>{a.data, a.stride}, rows, depth, b, b_stride, columns, c, c_stride);
  } else {
    multiply_add(Left<false>{a.data, a.stride}, rows, depth, b, b_stride, columns, c, c_stride);
  }
}

// Rows that pack_panel() asks for ahead of time: its steps down the rows are too short for the processor to guess.
constexpr int64_t kPackAhead = 32;

void pack_panel(const float* keys, int64_t stride, int64_t n, int64_t dim, float* panel) {
  int64_t first = 0;
  for (; first + kLanes <= n; first += kLanes) {
    int64_t d = 0;
    for (; d + kLanes <= dim; d += kLanes) {
      Vec block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        __builtin_prefetch(keys + (first + kPackAhead + i) * stride + d);
        block[i] = load(keys + (first + i) * stride + d);
      }
      transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(panel + (d + i) * kPanel + first, block[i]);
    }
    for (; d < dim; ++d) {
      for (int i = 0; i < kLanes; ++i) panel[d * kPanel + first + i] = keys[(first + i) * stride + d];
    }
  }
  for (; first < kPanel; ++first) {
    for (int64_t d = 0; d < dim; ++d) panel[d * kPanel + first] = first < n ? keys[first * stride + d] : 0.0F;
  }
}

// Of whole vectors.
template <typename Element>
inline Vec dot_lanes(const float* x, const Element* y, int64_t n) {
  Vec total = broadcast(0.0F);
  for (int64_t j = 0; j < n; j += kLanes) total += load(x + j) * load(y + j);
  return total;
}

float dot(const float* x, const float* y, int64_t n) {
  const int64_t whole = n / kLanes * kLanes;
  float sum = horizontal_sum(dot_lanes(x, y, whole));
  for (int64_t j = whole; j < n; ++j) sum += x[j] * y[j];
  return sum;
}

float dot_in_order(const float* x, const float* y, int64_t n) {
  float sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += x[j] * y[j];
  return sum;
}

void score_panel(const float* queries, int64_t rows, int64_t dim, const float* panel, float* scores, int64_t stride,
                 float* maxima) {
  multiply_rows<kVectors, Product::scores>(Left<false>{queries, dim}, rows, panel, kPanel, dim, scores, stride, maxima);
}

// Of Rows queries with kLanes / Rows keys: as many sums as a vector has lanes are added up together.
template <int Rows, typename Element>
inline void score_some_keys(const float* queries, int64_t dim, const Element* keys, int64_t key_stride, float* scores,
                            int64_t stride) {
  constexpr int kKeys = kLanes / Rows;
  Vec sums[kLanes];
#pragma GCC unroll 16
  for (Vec& sum : sums) sum = broadcast(0.0F);
  // Keys come from memory, which gives one row after the other faster than many side by side; several of them share the
  // loads of several queries.
  constexpr int kTogether = Rows < kKeys ? Rows : kKeys;
#pragma GCC unroll 16
  for (int first = 0; first < kKeys; first += kTogether) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec key[kTogether];
#pragma GCC unroll 4
      for (int i = 0; i < kTogether; ++i) {
        const Element* at = keys + (first + i) * key_stride + d;
        __builtin_prefetch(at + kFarAhead * key_stride);
        key[i] = load(at);
      }
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const Vec query = load(queries + r * dim + d);
#pragma GCC unroll 4
        for (int i = 0; i < kTogether; ++i) sums[r * kKeys + first + i] += query * key[i];
      }
    }
  }
  const Vec totals = horizontal_sums(sums);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    __builtin_memcpy(scores + r * stride, reinterpret_cast<const float*>(&totals) + r * kKeys, kKeys * sizeof(float));
  }
}

template <typename Element>
void score_keys(const float* queries, int64_t rows, int64_t dim, const Element* keys, int64_t key_stride, int64_t n,
                float* scores, int64_t stride, float* maxima) {
  const int64_t whole = n / kLanes * kLanes;
  int64_t r = 0;
  const auto score_rows = [&](auto rows_constant) {
    constexpr int kCount = decltype(rows_constant)::value;
    for (int64_t first = 0; first < whole; first += kLanes / kCount) {
      score_some_keys<kCount>(queries + r * dim, dim, keys + first * key_stride, key_stride,
                              scores + r * stride + first, stride);
    }
    r += kCount;
  };
  while (r + 4 <= rows) score_rows(Count<4>{});
  if (r + 2 <= rows) score_rows(Count<2>{});
  if (r < rows) score_rows(Count<1>{});
  for (r = 0; r < rows; ++r) {
    float* row = scores + r * stride;
    for (int64_t first = 0; first < whole; first += kLanes) {
      store(maxima + r * kLanes, max_or_second(load(row + first), load(maxima + r * kLanes)));
    }
    for (int64_t j = whole; j < kPanel; ++j) {
      row[j] = j < n ? horizontal_sum(dot_lanes(queries + r * dim, keys + j * key_stride, dim)) : 0.0F;
    }
  }
}

void distance_panel(const float* queries, int64_t rows, int64_t dim, const float* panel, float* scores, int64_t stride,
                    float* maxima) {
  multiply_rows<kVectors, Product::distances>(Left<false>{queries, dim}, rows, panel, kPanel, dim, scores, stride,
                                              maxima);
}

}  // namespace
