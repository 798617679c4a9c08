"""The gated delta rule in plain PyTorch, for tensors that the kernels cannot read: chunked, O(n) memory.

And gated linear attention with a gate per channel, the same without correction: ``u_i = v_i``.

Within a chunk the rule is a unit lower triangular system (the WY form): with ``d_i`` the decay from the
chunk's start to token i, ``d_ij`` that from token j to token i, and S the state at the start::

    u_i = b_i (v_i - (k_i d_i) S - sum_{j < i} (k_i d_ij . k_j) u_j)
    out_i = scale ((q_i d_i) S + sum_{j <= i} (q_i d_ij . k_j) u_j)

Yang et al., "Gated Delta Networks" (arXiv 2412.06464), section 3.3; Kimi Team, "Kimi Linear" (arXiv
2510.26692), section 3, for gates per channel. Every decay is e to a sum of log gates, never a quotient of two
decays: gates of any strength are exact. NaN and infinity reach all rows of their chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rattention.torch.softmax_composition import repeated, segment_runs, wide

CHUNK = 64
"""Tokens of one triangular system, where a head has one gate per token."""
CHUNK_OF_CHANNELS = 16
"""The same with a gate per channel, where decays of pairs are ``[chunk, chunk, head_dim]``."""
EPSILON = 1e-6
"""Added to the squared norm of queries and keys, as flash-linear-attention and Transformers do."""


class _Tokens(NamedTuple):
    """Some tokens; each ``[batch, heads, tokens, ...]`` but `run`."""

    query: Tensor
    key: Tensor
    value: Tensor
    log_gate: Tensor
    """``[..., 1]`` or ``[..., head_dim]``."""
    beta: Tensor
    """``[..., 1]``; without elements where nothing is corrected."""
    run: Tensor
    """``[batch, 1, tokens]``: the run of equal segment ids that each is in."""


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_gate: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    normalize: bool = False,
    initial_state: Tensor | None = None,
    key_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    return_state: bool = True,
) -> list[Tensor]:
    """`rattention.torch.gated_delta_rule`: output and, where asked for, state.

    Computed in float32, or in float64 where the query is.
    """
    q, k, v = (wide(tensor) for tensor in (query, key, value))
    if normalize:
        q, k = (_normalized(tensor) for tensor in (q, k))
    gate = log_gate if log_gate.dim() == 4 else log_gate[..., None]
    tokens = _tokens(q, k, v, gate, beta[..., None], scale, key_mask, segment_ids)
    output, state = _scanned(tokens, initial_state)
    return [output.to(query.dtype), state] if return_state else [output.to(query.dtype)]


def gated_linear_of_channels(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_gate: Tensor,
    scale: float | None,
    initial_state: Tensor | None,
    key_mask: Tensor | None,
    segment_ids: Tensor | None,
    return_state: bool,
) -> list[Tensor]:
    """`rattention.torch.gated_linear_attention` with a gate per channel: output and, where asked for,
    state."""
    q, k, v = (wide(tensor) for tensor in (query, key, value))
    heads = query.shape[1]
    gate = repeated(log_gate, heads)
    tokens = _tokens(q, k, v, gate, gate[..., :0], scale, key_mask, segment_ids)
    start = None if initial_state is None else repeated(initial_state, heads)
    output, state = _scanned(tokens, start)
    state_heads = key.shape[1] if initial_state is None else initial_state.shape[1]
    state = state[:, :: heads // max(state_heads, 1)] if heads else state
    return [output.to(query.dtype), state] if return_state else [output.to(query.dtype)]


def _tokens(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_gate: Tensor,
    beta: Tensor,
    scale: float | None,
    key_mask: Tensor | None,
    segment_ids: Tensor | None,
) -> _Tokens:
    q = query * (query.shape[3] ** -0.5 if scale is None else scale)
    k, v = (repeated(tensor, query.shape[1]) for tensor in (key, value))
    ids = query.new_zeros((query.shape[0], query.shape[2])) if segment_ids is None else segment_ids
    tokens = _Tokens(q, k, v, log_gate.to(q.dtype), beta.to(q.dtype), segment_runs(ids)[:, None])
    return tokens if key_mask is None else _shown(tokens, key_mask)


def _normalized(rows: Tensor) -> Tensor:
    return rows * (rows.square().sum(dim=-1, keepdim=True) + EPSILON).rsqrt()


def _shown(tokens: _Tokens, key_mask: Tensor) -> _Tokens:
    """Hidden tokens neither decay the state nor add to it, whatever they hold."""
    shown = key_mask[:, None, :, None]
    names = ("key", "value", "log_gate", "beta")
    return tokens._replace(**{name: torch.where(shown, getattr(tokens, name), 0.0) for name in names})


def _scanned(tokens: _Tokens, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, heads, length, dim = tokens.query.shape
    shape = (batch, heads, dim, tokens.value.shape[3])
    blank = tokens.query.new_zeros(shape)
    state = blank if initial_state is None else initial_state.to(blank.dtype).expand(shape)
    before = tokens.run.new_zeros((batch, 1, 1))
    outputs = [tokens.query.new_zeros((batch, heads, 0, shape[3]))]
    chunk = CHUNK if tokens.log_gate.shape[3] == 1 else CHUNK_OF_CHANNELS
    for start in range(0, length, chunk):
        own = _Tokens(*(part[:, :, start : start + chunk] for part in tokens))
        output, state = _chunk(own, state, before)
        outputs.append(output)
        before = own.run[:, :, -1:]
    return torch.cat(outputs, dim=2), state


def _chunk(tokens: _Tokens, state: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Output and next state of one chunk; `before` is the run of the token that left `state`."""
    query, key, value, log_gate, beta, run = tokens
    decay = _decays(log_gate)
    since_start = log_gate.cumsum(dim=2).exp()
    near = (run[:, :, :, None] == run[:, :, None, :]).tril()
    goes_on = (run == before)[..., None]
    new = value
    if beta.shape[3] > 0:
        from_state = torch.where(goes_on, (key * since_start) @ state, 0.0)
        system = torch.where(near, beta * _pairs(key, key, decay), 0.0)  # of which the diagonal is not read
        errors = beta * (value - from_state)
        new = torch.linalg.solve_triangular(system, errors, upper=False, unitriangular=True)
    output = torch.where(goes_on, (query * since_start) @ state, 0.0)
    output = output + torch.where(near, _pairs(query, key, decay), 0.0) @ new
    kept = torch.where(goes_on[:, :, -1:], since_start[:, :, -1, :, None] * state, 0.0)
    last = torch.where((run == run[:, :, -1:])[..., None], key * decay[:, :, -1], 0.0)
    return output, kept + last.mT @ new


def _decays(log_gate: Tensor) -> Tensor:
    """``[..., i, j, channels]``: what is left at token i of what token j added; 1 where j >= i. Summed for
    each j: the difference of two long sums would lose the digits of a short one."""
    count = log_gate.shape[2]
    later = torch.ones((count, count), dtype=torch.bool, device=log_gate.device).tril(-1)
    return torch.where(later[..., None], log_gate[:, :, :, None], 0.0).cumsum(dim=2).exp()


def _pairs(rows: Tensor, keys: Tensor, decay: Tensor) -> Tensor:
    """Products of rows and keys, each channel decayed by what lies between."""
    if decay.shape[-1] == 1:
        return (rows @ keys.mT) * decay[..., 0]
    return (rows[:, :, :, None] * keys[:, :, None] * decay).sum(dim=-1)
