// What the gated delta rule is asked to do: S_t = D_t S_{t-1} + beta_t k_t^T (v_t - k_t D_t S_{t-1}), row t reads
// scale q_t S_t. D_t is a number per head (Gated DeltaNet, arXiv 2412.06464) or one per key channel (Kimi Delta
// Attention, arXiv 2510.26692). Without betas nothing is corrected: S_t = D_t S_{t-1} + k_t^T v_t (gated linear
// attention, arXiv 2312.06635).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/keys.h"
#include "core/tensor.h"
#include "kernels/tile_kernels.h"

namespace rattention {

struct DeltaProblem {
  TensorView query;
  TensorView key;  // its heads divide those of the query, and so do the value's, which are as many
  TensorView value;
  // Contiguous: ln D <= 0, [batch, gate_heads, length] or [batch, gate_heads, length, head_dim].
  const float* log_gate = nullptr;
  bool per_channel = false;
  std::int64_t gate_heads = 0;   // as many as query heads, or as key/value heads
  const float* beta = nullptr;   // contiguous [batch, heads, length], or none
  std::int64_t state_heads = 0;  // as many as query heads, or as key/value heads where gates are
  float scale = 1;
  bool normalize = false;                // queries and keys to length 1
  const float* initial_state = nullptr;  // contiguous [batch, state_heads, head_dim, value_dim], or none
  std::optional<PaddingMask> padding;
  const std::int64_t* segments = nullptr;  // contiguous [batch, length]

  std::int64_t group() const { return key.heads() == 0 ? 1 : query.heads() / key.heads(); }
  std::int64_t batch_heads() const { return query.batch() * query.heads(); }
  bool corrects() const { return beta != nullptr; }
  // A head's gates of token i, gates() of them, and its state, where heads may share both; `index` is among
  // batch_heads().
  std::int64_t gates() const { return per_channel ? key.dim() : 1; }
  std::int64_t gate_at(std::int64_t index, std::int64_t i) const {
    return (shared(index, gate_heads) * query.length() + i) * gates();
  }
  std::int64_t state_at(std::int64_t index) const { return shared(index, state_heads) * user_state_size(); }
  // Of the heads that share a state the first one stores it, and takes its gradient.
  bool owns_state(std::int64_t index) const { return index % (query.heads() / state_heads) == 0; }
  std::int64_t user_state_size() const { return key.dim() * value.dim(); }
  // Sizes in working memory; a state is [width][columns], zero beyond head_dim.
  std::int64_t width() const { return padded(key.dim()); }
  std::int64_t columns() const { return padded(value.dim()); }
  std::int64_t state_size() const { return width() * columns(); }
  bool hidden(std::int64_t b, std::int64_t j) const { return padding && padding->hides(b, j); }

 private:
  std::int64_t shared(std::int64_t index, std::int64_t own_heads) const { return index / (query.heads() / own_heads); }
};

}  // namespace rattention
