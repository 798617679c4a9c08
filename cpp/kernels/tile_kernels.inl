// See tile_kernels.h. Compiled once per instruction set; internal linkage only.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/simd.h"
#include "kernels/tile_kernels.h"

namespace {

using std::int64_t;

// Register blocking: 6 rows by 4 vectors fill 24 of AVX-512's 32 registers, 6 by 2 fill 12 of the 16 elsewhere; both
// keep more multiply-adds in flight than latency times ports (8).
constexpr int kRows = 6;
constexpr int kVectors = kLanes == 16 ? 4 : 2;
constexpr int64_t kPanel = kVectors * kLanes;
// Values stream from the second-level cache; packed keys are in the first by the second group of rows.
constexpr int64_t kAhead = 4;

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

// c[Rows][Vectors * lanes] = a . b for scores, c += a . b for sums, and sum_k (a_ik - b_kj)^2 for distances. Scores are
// taken into maxima [Rows][lanes] while they are in registers.
template <int Rows, int Vectors, Product Kind, bool Transposed>
inline void multiply_block(Left<Transposed> a, const float* b, int64_t b_stride, int64_t depth, float* c,
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
      for (int j = 0; j < Vectors; ++j) __builtin_prefetch(b + (k + kAhead) * b_stride + j * kLanes);
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

template <int Vectors, Product Kind, bool Transposed>
void multiply_rows(Left<Transposed> a, int64_t rows, const float* b, int64_t b_stride, int64_t depth, float* c,
                   int64_t c_stride, float* maxima) {
  int64_t i = 0;
  const auto block = [&](auto rows_constant) {
    constexpr int kCount = decltype(rows_constant)::value;
    multiply_block<kCount, Vectors, Kind>(a.from_row(i), b, b_stride, depth, c + i * c_stride, c_stride,
                                          maxima + i * kLanes);
    i += kCount;
  };
  while (i + kRows <= rows) block(Count<kRows>{});
  while (i + 2 <= rows) block(Count<2>{});
  if (i < rows) block(Count<1>{});
}

// c[rows][columns] += a . b, as many columns at a time as registers allow.
template <int Vectors, bool Transposed>
int64_t multiply_add_columns(Left<Transposed> a, int64_t rows, int64_t depth, const float* b, int64_t b_stride,
                             int64_t columns, float* c, int64_t c_stride, int64_t column) {
  for (; column + Vectors * kLanes <= columns; column += Vectors * kLanes) {
    multiply_rows<Vectors, Product::sums>(a, rows, b + column, b_stride, depth, c + column, c_stride, c);
  }
  return column;
}

template <bool Transposed>
void multiply_add(Left<Transposed> a, int64_t rows, int64_t depth, const float* b, int64_t b_stride, int64_t columns,
                  float* c, int64_t c_stride) {
  int64_t column = multiply_add_columns<kVectors>(a, rows, depth, b, b_stride, columns, c, c_stride, 0);
  if constexpr (kVectors > 3)
    column = multiply_add_columns<3>(a, rows, depth, b, b_stride, columns, c, c_stride, column);
  column = multiply_add_columns<2>(a, rows, depth, b, b_stride, columns, c, c_stride, column);
  multiply_add_columns<1>(a, rows, depth, b, b_stride, columns, c, c_stride, column);
}

void multiply_add_operand(rattention::LeftOperand a, int64_t rows, int64_t depth, const float* b, int64_t b_stride,
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

float dot(const float* x, const float* y, int64_t n) {
  Vec total = broadcast(0.0F);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) total += load(x + j) * load(y + j);
  float rest = horizontal_sum(total);
  for (; j < n; ++j) rest += x[j] * y[j];
  return rest;
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

// kLanes keys at a time: their dot products lie in the lanes of as many sums until these are transposed and added up.
void score_keys(const float* queries, int64_t rows, int64_t dim, const float* keys, int64_t key_stride, int64_t n,
                float* scores, int64_t stride, float* maxima) {
  int64_t first = 0;
  for (; first + kLanes <= n; first += kLanes) {
    const float* some = keys + first * key_stride;
    for (int64_t r = 0; r < rows; ++r) {
      const float* query = queries + r * dim;
      Vec sums[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        const float* key = some + i * key_stride;
        sums[i] = load(query) * load(key);
        for (int64_t d = kLanes; d < dim; d += kLanes) sums[i] += load(query + d) * load(key + d);
      }
      transpose(sums);
#pragma GCC unroll 4
      for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
      }
      store(scores + r * stride + first, sums[0]);
      store(maxima + r * kLanes, max_or_second(sums[0], load(maxima + r * kLanes)));
    }
  }
  for (; first < kPanel; ++first) {
    for (int64_t r = 0; r < rows; ++r) {
      scores[r * stride + first] = first < n ? dot(queries + r * dim, keys + first * key_stride, dim) : 0.0F;
    }
  }
}

void distance_panel(const float* queries, int64_t rows, int64_t dim, const float* panel, float* scores, int64_t stride,
                    float* maxima) {
  multiply_rows<kVectors, Product::distances>(Left<false>{queries, dim}, rows, panel, kPanel, dim, scores, stride,
                                              maxima);
}

// The last elements of a row as a whole vector.
inline Vec load_part(const float* x, int64_t n, float filling) {
  Vec v = broadcast(filling);
  for (int64_t i = 0; i < n; ++i) v[i] = x[i];
  return v;
}

inline void store_part(float* x, int64_t n, Vec v) {
  for (int64_t i = 0; i < n; ++i) x[i] = v[i];
}

// Reads nothing beyond the row: what lies there may be a score that the row must not see.
float max(const float* x, int64_t n) {
  Vec top = broadcast(-std::numeric_limits<float>::infinity());
  Vec other = top;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    top = max_or_second(load(x + j), top);
    other = max_or_second(load(x + j + kLanes), other);
  }
  if (j + kLanes <= n) top = max_or_second(load(x + j), top);
  if (n % kLanes != 0) {
    other = max_or_second(n < kLanes ? load_part(x, n, -std::numeric_limits<float>::infinity()) : load(x + n - kLanes),
                          other);
  }
  return horizontal_max(max_or_second(other, top));
}

float max_lane(const float* maxima) { return horizontal_max(load(maxima)); }

// e^x. The factor comes after the subtraction, so that it multiplies a number that is small where the result is not.
inline Vec exp_vector(Vec x) { return exp2_vector(x * broadcast(1.44269504F)); }

float exp_row(float* s, int64_t n, float shift) {
  const Vec offset = broadcast(shift);
  Vec total = broadcast(0.0F);
  Vec other = total;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    const Vec p = exp_vector(load(s + j) - offset);
    const Vec q = exp_vector(load(s + j + kLanes) - offset);
    store(s + j, p);
    store(s + j + kLanes, q);
    total += p;
    other += q;
  }
  for (; j < n; j += kLanes) {
    const Vec p = exp_vector(load(s + j) - offset);
    store(s + j, p);
    total += p;
  }
  return horizontal_sum(total + other);
}

// Weights and their sum have the bits that exp_row() gives.
rattention::RowSums exp_sums(float* s, int64_t n, float shift) {
  const Vec offset = broadcast(shift);
  const Vec floor = broadcast(-104.0F);  // keeps 0 * -inf out of the sums; weights there are 0
  Vec score = broadcast(0.0F);
  const auto weights = [&](int64_t j) {
    const Vec x = max_or_second(floor, load(s + j) - offset);
    const Vec p = exp_vector(x);
    store(s + j, p);
    score += p * x;
    return p;
  };
  Vec total = broadcast(0.0F);
  Vec other = total;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    total += weights(j);
    other += weights(j + kLanes);
  }
  for (; j < n; j += kLanes) total += weights(j);
  return {horizontal_sum(total + other), horizontal_sum(score)};
}

void exp_twice_shifted(float* s, int64_t n, float shift, float rest) {
  const Vec offset = broadcast(shift);
  const Vec remainder = broadcast(rest);
  for (int64_t j = 0; j < n; j += kLanes) store(s + j, exp_vector((load(s + j) - offset) - remainder));
}

float sum(const float* x, int64_t n) {
  Vec total = broadcast(0.0F);
  Vec other = total;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    total += load(x + j);
    other += load(x + j + kLanes);
  }
  for (; j + kLanes <= n; j += kLanes) total += load(x + j);
  float rest = horizontal_sum(total + other);
  for (; j < n; ++j) rest += x[j];
  return rest;
}

inline void add_deviation(Vec x, Vec center, Vec* squares, Vec* nonzero) {
  const Vec zero = broadcast(0.0F);
  const Vec d = x != zero ? x - center : zero;
  *squares += d * d;
  *nonzero += x != zero ? broadcast(1.0F) : zero;
}

rattention::Deviations deviations(const float* x, int64_t n, float center) {
  const Vec c = broadcast(center);
  Vec squares = broadcast(0.0F);
  Vec nonzero = squares;
  Vec other_squares = squares;
  Vec other_nonzero = squares;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    add_deviation(load(x + j), c, &squares, &nonzero);
    add_deviation(load(x + j + kLanes), c, &other_squares, &other_nonzero);
  }
  for (; j + kLanes <= n; j += kLanes) add_deviation(load(x + j), c, &squares, &nonzero);
  rattention::Deviations rest{horizontal_sum(squares + other_squares), horizontal_sum(nonzero + other_nonzero)};
  for (; j < n; ++j) {
    if (x[j] == 0) continue;
    rest.squares += (x[j] - center) * (x[j] - center);
    ++rest.nonzero;
  }
  return rest;
}

void scale(float* x, int64_t n, float factor) {
  const Vec f = broadcast(factor);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(x + j, load(x + j) * f);
  for (; j < n; ++j) x[j] *= factor;
}

void add(float* x, const float* y, int64_t n) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(x + j, load(x + j) + load(y + j));
  for (; j < n; ++j) x[j] += y[j];
}

void add_distance(float* s, int64_t n, float first, float slope) {
  const Vec lanes = lane_index();
  const Vec factor = broadcast(slope);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec signed_distance = broadcast(first + static_cast<float>(j)) + lanes;
    store(s + j, load(s + j) + factor * max_or_second(signed_distance, -signed_distance));
  }
  for (; j < n; ++j) {
    const float distance = first + static_cast<float>(j);
    s[j] += slope * (distance < 0 ? -distance : distance);
  }
}

inline float leading_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0xFFFFF000U;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kSmallestNormal = std::numeric_limits<float>::min();

// 2^(power * logarithm), at most 2^127. The whole part of the product is taken out before anything is rounded: a
// product of about 100 rounded as it is would cost seven bits of the result. The first 12 bits of `power` times a whole
// number below 2^8 are exact.
inline Vec exp2_of_product(float power, Log2 logarithm) {
  const float high = leading_bits(power);
  const Vec product = broadcast(high) * logarithm.whole;
  const Vec whole = min_of(max_of(nearest(product), -126.0F), 126.0F);
  const Vec rest = (product - whole) + broadcast(power - high) * logarithm.whole + broadcast(power) * logarithm.rest;
  return min_of(exp2_vector(min_of(rest, 127.0F)) * exp2_vector(whole), 0x1p127F);
}

// x^power for x >= 0, bounded by 2^127 for finite x; infinity and NaN stay what they are.
inline Vec power_vector(Vec x, float power) {
  if (power == 0.5F) return square_root(x);
  if (power == 1.0F) return x;
  const Vec result = exp2_of_product(power, log2_parts(x));
  const Vec finite = x >= broadcast(kSmallestNormal) ? result : broadcast(0.0F);
  return x <= broadcast(kLargest) ? finite : x;
}

void raise(float* s, int64_t n, float power) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(s + j, power_vector(load(s + j), power));
  if (j < n) store_part(s + j, n - j, power_vector(load_part(s + j, n - j, 1.0F), power));
}

void invert(float* s, int64_t n, float eps) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(s + j, broadcast(1.0F) / (load(s + j) + broadcast(eps)));
  for (; j < n; ++j) s[j] = 1 / (s[j] + eps);
}

void gravitate(float* s, const float* mass, int64_t n, float factor) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(s + j, broadcast(factor) * load(mass + j) * load(s + j));
  for (; j < n; ++j) s[j] = factor * mass[j] * s[j];
}

rattention::GravitySums gravity_gradient(float* x, const float* u, const float* mass, int64_t n, float factor,
                                         float* mass_gradient) {
  Vec field = broadcast(0.0F);
  Vec pull = field;
  const Vec strength = broadcast(factor);
  const Vec slope = broadcast(-2 * factor);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec gradient = load(x + j);
    const Vec zero = broadcast(0.0F);
    const auto seen = gradient != zero;  // of a hidden key distance and masses may be NaN
    const Vec inverse = seen ? load(u + j) : zero;
    const Vec t = gradient * inverse;
    const Vec tm = t * (seen ? load(mass + j) : zero);
    const Vec w = seen ? slope * tm * inverse : zero;
    store(mass_gradient + j, load(mass_gradient + j) + (seen ? strength * t : zero));
    store(x + j, w);
    field += tm;
    pull += w;
  }
  rattention::GravitySums sums{horizontal_sum(field), horizontal_sum(pull), 0.0F};
  for (; j < n; ++j) {
    if (x[j] == 0) continue;
    const float t = x[j] * u[j];
    mass_gradient[j] += factor * t;
    x[j] = -2 * factor * t * mass[j] * u[j];
    sums.field += t * mass[j];
    sums.pull += x[j];
  }
  return sums;
}

// One vector of power_law_gradient: x becomes w, mass_gradient grows, and so do field, pull and exponent.
inline void add_power_law(Vec* x, Vec squares, Vec mass, rattention::PowerLaw law, Vec* mass_gradient, Vec (&sums)[3]) {
  const Vec zero = broadcast(0.0F);
  const Vec one = broadcast(1.0F);
  const auto seen = *x != zero;  // of a hidden key distance and masses may be NaN
  const Vec square = seen ? squares : one;
  const Vec distance = power_vector(square, law.exponent / 2);
  const Vec inverse = one / (distance + broadcast(law.eps));
  const Vec t = *x * inverse;
  const Vec tm = t * (seen ? mass : zero);
  const Vec slope =
      broadcast(-law.factor * law.exponent) * tm * inverse;  // dL/d ln distance, but for distance^exponent
  const Vec apart = square <= broadcast(kLargest) ? distance : zero;
  const Vec ratio = square >= broadcast(kSmallestNormal) ? apart / square : zero;
  const Vec logarithm = square >= broadcast(kSmallestNormal) ? log2_vector(square) : zero;
  constexpr float kHalfLn2 = 0.34657359F;
  *mass_gradient += seen ? broadcast(law.factor) * t : zero;
  *x = seen ? slope * ratio : zero;
  sums[0] += tm;
  sums[1] += *x;
  sums[2] += seen ? slope * apart * logarithm * broadcast(kHalfLn2 / law.exponent) : zero;
}

rattention::GravitySums power_law_gradient(float* x, const float* squares, const float* mass, int64_t n,
                                           rattention::PowerLaw law, float* mass_gradient) {
  Vec sums[3] = {broadcast(0.0F), broadcast(0.0F), broadcast(0.0F)};
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    Vec w = load(x + j);
    Vec gradient = load(mass_gradient + j);
    add_power_law(&w, load(squares + j), load(mass + j), law, &gradient, sums);
    store(x + j, w);
    store(mass_gradient + j, gradient);
  }
  if (const int64_t rest = n - j; rest > 0) {
    Vec w = load_part(x + j, rest, 0.0F);
    Vec gradient = load_part(mass_gradient + j, rest, 0.0F);
    add_power_law(&w, load_part(squares + j, rest, 1.0F), load_part(mass + j, rest, 0.0F), law, &gradient, sums);
    store_part(x + j, rest, w);
    store_part(mass_gradient + j, rest, gradient);
  }
  return {horizontal_sum(sums[0]), horizontal_sum(sums[1]), horizontal_sum(sums[2])};
}

void score_gradient(float* x, const float* p, int64_t n, float delta) {
  const Vec zero = broadcast(0.0F);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec weight = load(p + j);
    store(x + j, weight != zero ? weight * (load(x + j) - broadcast(delta)) : zero);
  }
  for (; j < n; ++j) x[j] = p[j] != 0 ? p[j] * (x[j] - delta) : 0.0F;
}

float sum_distance(const float* x, int64_t n, float first) {
  const Vec lanes = lane_index();
  Vec total = broadcast(0.0F);
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec signed_distance = broadcast(first + static_cast<float>(j)) + lanes;
    total += load(x + j) * max_or_second(signed_distance, -signed_distance);
  }
  float rest = horizontal_sum(total);
  for (; j < n; ++j) {
    const float distance = first + static_cast<float>(j);
    rest += x[j] * (distance < 0 ? -distance : distance);
  }
  return rest;
}

int64_t hide(float* s, const std::int32_t* visible, int64_t n) {
  const float hidden = -std::numeric_limits<float>::infinity();
  IntVec shown = {};
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const IntVec flags = load(visible + j);
    store(s + j, flags != 0 ? load(s + j) : broadcast(hidden));
    shown -= flags;
  }
  int64_t count = 0;
  for (int i = 0; i < kLanes; ++i) count += shown[i];
  for (; j < n; ++j) {
    if (visible[j] == 0) s[j] = hidden;
    count -= visible[j];
  }
  return count;
}

typedef std::int8_t Bytes __attribute__((vector_size(kLanes), aligned(1), may_alias));

void and_bytes(const std::uint8_t* flags, int64_t n, std::int32_t* visible) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Bytes shown = *reinterpret_cast<const Bytes*>(flags + j) != 0;
    *reinterpret_cast<UnalignedIntVec*>(visible + j) = load(visible + j) & __builtin_convertvector(shown, IntVec);
  }
  for (; j < n; ++j) visible[j] &= flags[j] != 0 ? -1 : 0;
}

void and_differs(const float* x, int64_t n, float value, std::int32_t* visible) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    *reinterpret_cast<UnalignedIntVec*>(visible + j) =
        load(visible + j) & reinterpret_cast<IntVec>(load(x + j) != broadcast(value));
  }
  for (; j < n; ++j) visible[j] &= x[j] != value ? -1 : 0;
}

bool all_finite(const float* x, int64_t n) {
  const Vec zero = broadcast(0.0F);  // x * 0 is 0 for finite x and NaN otherwise
  Vec poison[4] = {zero, zero, zero, zero};
  int64_t j = 0;
  for (; j + 4 * kLanes <= n; j += 4 * kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) poison[i] += load(x + j + i * kLanes) * zero;
  }
  for (; j + kLanes <= n; j += kLanes) poison[0] += load(x + j) * zero;
  float rest = horizontal_sum((poison[0] + poison[1]) + (poison[2] + poison[3]));
  for (; j < n; ++j) rest += x[j] * 0.0F;
  return rest == 0.0F;
}

int64_t find(const float* x, int64_t n, float value) {
  int64_t j = 0;
  const Vec wanted = broadcast(value);
  for (; j + kLanes <= n; j += kLanes) {
    const Vec hit = load(x + j) == wanted ? broadcast(1.0F) : broadcast(0.0F);
    if (horizontal_sum(hit) > 0) break;
  }
  while (j < n && x[j] != value) ++j;
  return j;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double fma_rate(double seconds) {
  // Twelve named sums: an array would be kept in memory by the barrier below.
  Vec a0 = broadcast(1.0F), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0, a9 = a0, a10 = a0,
      a11 = a0;
  const Vec m = broadcast(0.999999F);
  const Vec d = broadcast(1e-6F);
  const double start = seconds_now();
  double elapsed = 0;
  double operations = 0;
  while (elapsed < seconds) {
    for (int i = 0; i < 20000; ++i) {
      a0 = a0 * m + d, a1 = a1 * m + d, a2 = a2 * m + d, a3 = a3 * m + d, a4 = a4 * m + d, a5 = a5 * m + d;
      a6 = a6 * m + d, a7 = a7 * m + d, a8 = a8 * m + d, a9 = a9 * m + d, a10 = a10 * m + d, a11 = a11 * m + d;
#if RATTENTION_LANES == 16
      asm volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5));
      asm volatile("" : "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));
#else
      asm volatile("" : "+x"(a0), "+x"(a1), "+x"(a2), "+x"(a3), "+x"(a4), "+x"(a5));
      asm volatile("" : "+x"(a6), "+x"(a7), "+x"(a8), "+x"(a9), "+x"(a10), "+x"(a11));
#endif
    }
    operations += 20000.0 * 12 * 2 * kLanes;
    elapsed = seconds_now() - start;
  }
  return operations / elapsed / 1e9;
}

}  // namespace

namespace rattention::detail {

const TileKernels RATTENTION_KERNELS = {
    kLanes,
    kPanel,
    kRows,
    pack_panel,
    score_panel,
    score_keys,
    distance_panel,
    multiply_add_operand,
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
    all_finite,
    find,
    fma_rate,
};

}  // namespace rattention::detail
