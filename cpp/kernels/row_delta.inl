// See row_kernels.h: states that decay, and the triangular solve of the delta rule.
#pragma once

#include <cstdint>

#include "kernels/row_kernels.h"
#include "kernels/simd.h"

namespace {

using std::int64_t;

// As many rows as substitute() takes: the block of the tile kernels.
constexpr int kMostRows = 6;

// Infinity keeps what it is where a part of it would be taken off.
inline Vec decayed(Vec held, IntVec keeps, Vec rate) {
  const Vec less = reinterpret_cast<Vec>(reinterpret_cast<IntVec>(held) & keeps) + rate * held;
  const Vec nothing = held - held;
  return (nothing != nothing) & keeps ? held : less;
}

inline IntVec broadcast_bits(std::int32_t bits) {
  float same;
  __builtin_memcpy(&same, &bits, sizeof same);
  return reinterpret_cast<IntVec>(broadcast(same));
}

// Near 0 by the series, whose next term is less than half a unit in the last place.
void decay_rates(float* gates, std::int32_t* keeps, int64_t n) {
  constexpr float kNear = -0.5F;
  constexpr float kLog2E = 1.44269504F;
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec x = load(gates + j);
    Vec series = broadcast(1.0F);
    for (float k = 9; k > 1; --k) series = broadcast(1.0F) + series * x * broadcast(1.0F / k);
    const IntVec near = x > broadcast(kNear);
    store(gates + j, near ? series * x : exp2_vector(x * broadcast(kLog2E)));
    store(reinterpret_cast<float*>(keeps) + j, reinterpret_cast<Vec>(near));
  }
}

void decay(float* state, int64_t stride, const float* rates, const std::int32_t* keeps, int64_t rows, int64_t columns) {
  for (int64_t f = 0; f < rows; ++f) {
    if (rates[f] == 0.0F && keeps[f] != 0) continue;  // nothing decays
    const Vec rate = broadcast(rates[f]);
    const IntVec keep = broadcast_bits(keeps[f]);
    float* row = state + f * stride;
    for (int64_t c = 0; c < columns; c += kLanes) store(row + c, decayed(load(row + c), keep, rate));
  }
}

// What a token does to the state besides its decay.
enum class Update { none, value, correction };

// One pass over the state: it is in the first-level cache, and sums are in registers.
template <int Vectors, bool Decays, Update Kind, bool Reads>
int64_t delta_token_columns(const rattention::DeltaToken& token, float* state, int64_t stride, int64_t rows,
                            int64_t columns, float* read, float* out, int64_t first) {
  for (; first + Vectors * kLanes <= columns; first += Vectors * kLanes) {
    Vec updates[Vectors];
    Vec outs[Vectors];
    Vec reads[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const int64_t at = first + v * kLanes;
      updates[v] = outs[v] = reads[v] = broadcast(0.0F);
      if (Kind != Update::none) updates[v] = load(token.value + at);
      if (Kind == Update::correction) updates[v] = broadcast(token.beta) * (updates[v] - load(read + at));
    }
    for (int64_t f = 0; f < rows; ++f) {
      const Vec key = broadcast(Kind == Update::none ? 0.0F : token.key[f]);
      const Vec query = broadcast(token.query[f]);
      const Vec next = broadcast(Reads ? token.next[f] : 0.0F);
      const Vec rate = broadcast(Decays ? token.rates[f * token.step] : 0.0F);
      const IntVec keep = broadcast_bits(Decays ? token.keeps[f * token.step] : 0);
      float* row = state + f * stride + first;
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) {
        Vec held = load(row + v * kLanes);
        if (Decays) held = decayed(held, keep, rate);
        if (Kind != Update::none) held += key * updates[v];
        if (Decays || Kind != Update::none) store(row + v * kLanes, held);
        outs[v] += query * held;
        if (Reads) reads[v] += next * held;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      store(out + first + v * kLanes, outs[v]);
      if (Reads) store(read + first + v * kLanes, reads[v]);
    }
  }
  return first;
}

template <bool Decays, Update Kind, bool Reads>
void delta_token_of(const rattention::DeltaToken& token, float* state, int64_t stride, int64_t rows, int64_t columns,
                    float* read, float* out) {
  // Four vectors of 512 bits are slower than two on Zen 4 (80 and 108 GFLOP/s of 117); of 256 bits they are faster.
  constexpr int kMost = kLanes == 16 ? 2 : 4;
  int64_t first = delta_token_columns<kMost, Decays, Kind, Reads>(token, state, stride, rows, columns, read, out, 0);
  first = delta_token_columns<2, Decays, Kind, Reads>(token, state, stride, rows, columns, read, out, first);
  delta_token_columns<1, Decays, Kind, Reads>(token, state, stride, rows, columns, read, out, first);
}

template <bool Decays, Update Kind>
void delta_token_with(const rattention::DeltaToken& token, float* state, int64_t stride, int64_t rows, int64_t columns,
                      float* read, float* out) {
  const auto run = token.next != nullptr ? delta_token_of<Decays, Kind, true> : delta_token_of<Decays, Kind, false>;
  run(token, state, stride, rows, columns, read, out);
}

template <bool Decays>
void delta_token_that(const rattention::DeltaToken& token, float* state, int64_t stride, int64_t rows, int64_t columns,
                      float* read, float* out) {
  if (token.value == nullptr) {
    delta_token_with<Decays, Update::none>(token, state, stride, rows, columns, read, out);
  } else if (token.corrects) {
    delta_token_with<Decays, Update::correction>(token, state, stride, rows, columns, read, out);
  } else {
    delta_token_of<Decays, Update::value, false>(token, state, stride, rows, columns, read, out);
  }
}

void delta_token(const rattention::DeltaToken& token, float* state, int64_t stride, int64_t rows, int64_t columns,
                 float* read, float* out) {
  const auto run = token.rates != nullptr ? delta_token_that<true> : delta_token_that<false>;
  run(token, state, stride, rows, columns, read, out);
}

void scale_rows(const float* x, const float* factors, int64_t rows, int64_t columns, float* out) {
  for (int64_t i = 0; i < rows; ++i) {
    const Vec factor = broadcast(factors[i]);
    for (int64_t c = 0; c < columns; c += kLanes) store(out + i * columns + c, load(x + i * columns + c) * factor);
  }
}

void multiply_rows(const float* x, const float* factors, int64_t rows, int64_t columns, float* out) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Vec factor = load(factors + c);
    for (int64_t i = 0; i < rows; ++i) store(out + i * columns + c, load(x + i * columns + c) * factor);
  }
}

// Sums over channels are kept as vectors until the end.
template <int Rows>
void decayed_products_of(const float* rows, const float* keys, const float* steps, int64_t columns, float* c,
                         int64_t stride) {
  Vec sums[Rows][Rows];
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 6
    for (int j = 0; j <= i; ++j) sums[i][j] = broadcast(0.0F);
  }
  for (int64_t at = 0; at < columns; at += kLanes) {
    Vec decayed[Rows];
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) {
      const Vec step = load(steps + i * columns + at);
      const Vec row = load(rows + i * columns + at);
      decayed[i] = load(keys + i * columns + at);
#pragma GCC unroll 6
      for (int j = 0; j < i; ++j) decayed[j] *= step;
#pragma GCC unroll 6
      for (int j = 0; j <= i; ++j) sums[i][j] += row * decayed[j];
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 6
    for (int j = 0; j <= i; ++j) c[i * stride + j] = horizontal_sum(sums[i][j]);
  }
}

void decayed_products(const float* rows, const float* keys, const float* steps, int64_t n, int64_t columns, float* c,
                      int64_t stride) {
  switch (n) {
    case 1:
      return decayed_products_of<1>(rows, keys, steps, columns, c, stride);
    case 2:
      return decayed_products_of<2>(rows, keys, steps, columns, c, stride);
    case 3:
      return decayed_products_of<3>(rows, keys, steps, columns, c, stride);
    case 4:
      return decayed_products_of<4>(rows, keys, steps, columns, c, stride);
    case 5:
      return decayed_products_of<5>(rows, keys, steps, columns, c, stride);
    default:
      return decayed_products_of<kMostRows>(rows, keys, steps, columns, c, stride);
  }
}

void decayed_products_back(const float* grad, int64_t stride, const float* rows, const float* keys, const float* steps,
                           int64_t n, int64_t columns, float* grad_rows, float* grad_keys) {
  for (int64_t at = 0; at < columns; at += kLanes) {
    Vec decays[kMostRows];
    Vec to_keys[kMostRows];
    for (int64_t i = 0; i < n; ++i) {
      const Vec step = load(steps + i * columns + at);
      const Vec row = load(rows + i * columns + at);
      for (int64_t j = 0; j < i; ++j) decays[j] *= step;
      decays[i] = broadcast(1.0F);
      to_keys[i] = broadcast(0.0F);
      Vec to_row = load(grad_rows + i * columns + at);
      for (int64_t j = 0; j <= i; ++j) {
        const Vec share = broadcast(grad[i * stride + j]) * decays[j];
        to_row += share * load(keys + j * columns + at);
        to_keys[j] += share * row;
      }
      store(grad_rows + i * columns + at, to_row);
    }
    for (int64_t j = 0; j < n; ++j) {
      store(grad_keys + j * columns + at, load(grad_keys + j * columns + at) + to_keys[j]);
    }
  }
}

void substitute(const float* ties, int64_t stride, const float* beta, int64_t rows, int64_t columns, float* error,
                float* update) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec updates[kMostRows];
    for (int64_t i = 0; i < rows; ++i) {
      Vec e = load(error + i * columns + c);
      for (int64_t j = 0; j < i; ++j) e += broadcast(ties[i * stride + j]) * updates[j];
      updates[i] = broadcast(beta[i]) * e;
      store(error + i * columns + c, e);
      store(update + i * columns + c, updates[i]);
    }
  }
}

void substitute_back(const float* ties, int64_t stride, const float* beta, int64_t rows, int64_t columns, float* error,
                     float* update) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec updates[kMostRows];
    for (int64_t j = rows - 1; j >= 0; --j) {
      Vec e = load(error + j * columns + c);
      for (int64_t i = j + 1; i < rows; ++i) e += broadcast(ties[i * stride + j]) * updates[i];
      updates[j] = broadcast(beta[j]) * e;
      store(error + j * columns + c, e);
      store(update + j * columns + c, updates[j]);
    }
  }
}

}  // namespace
