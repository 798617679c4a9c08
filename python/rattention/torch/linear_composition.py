"""The linear family in plain PyTorch, for tensors that the kernels cannot read: chunked, O(n) memory.

NaN and infinity reach all rows of their chunk, where the kernels keep them to the rows that see them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rattention.torch.delta_composition import gated_linear_of_channels
from rattention.torch.rotary import plain_rotary
from rattention.torch.softmax_composition import attention, per_kv_head, repeated, segment_runs, wide

CHUNK = 64
"""Positions whose pairs are formed at once; what lies before them comes through the state."""


def residual_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    feature_map: str,
    initial_state: Tensor | None,
    key_mask: Tensor | None,
    segment_ids: Tensor | None,
    return_state: bool,
) -> list[Tensor]:
    """`rattention.residual_linear_attention`: output and, where asked for, state."""
    made = _rows_and_state(query, key, value, None, window, feature_map, initial_state, key_mask, segment_ids)
    return _as_results(*made, query, return_state)


def gated_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_gate: Tensor,
    *,
    window: int,
    feature_map: str | None,
    scale: float | None,
    initial_state: Tensor | None,
    key_mask: Tensor | None,
    segment_ids: Tensor | None,
    return_state: bool,
) -> list[Tensor]:
    """`rattention.gated_linear_attention`: output and, where asked for, state."""
    if log_gate.dim() == 4:
        masks = initial_state, key_mask, segment_ids
        return gated_linear_of_channels(query, key, value, log_gate, scale, *masks, return_state)
    options = window, feature_map, initial_state, key_mask, segment_ids
    rows, state = _rows_and_state(query, key, value, log_gate, *options)
    factor = max(query.shape[3], 1) ** -0.5 if scale is None else scale
    return _as_results(rows * factor, state, query, return_state)


def _as_results(rows: Tensor, state: Tensor, query: Tensor, return_state: bool) -> list[Tensor]:
    output = rows.to(query.dtype)
    return [output, state.to(torch.float32)] if return_state else [output]


def _rows_and_state(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_gate: Tensor | None,
    window: int,
    feature_map: str | None,
    initial_state: Tensor | None,
    key_mask: Tensor | None,
    segment_ids: Tensor | None,
) -> tuple[Tensor, Tensor]:
    length, shift = query.shape[2], min(window + 1, query.shape[2])
    if initial_state is not None and initial_state.shape[1] != key.shape[1]:
        key, value = (repeated(tensor, initial_state.shape[1]) for tensor in (key, value))
        log_gate = None if log_gate is None else repeated(log_gate, initial_state.shape[1])
    phi_q, phi_k = (features(tensor, feature_map) for tensor in (query, key))
    ids = query.new_zeros((query.shape[0], length)) if segment_ids is None else segment_ids
    runs = segment_runs(ids)
    # Shifted by w + 1, a key is added at the first row that sees it, if both are in the same segment.
    shown = runs[:, : length - shift] == runs[:, shift:]
    if key_mask is not None:
        shown = shown & key_mask[:, : length - shift]
    phi_k, values = (_shifted(tensor, shift, shown) for tensor in (phi_k, wide(value)))
    gates = None if log_gate is None else _shifted(wide(log_gate)[..., None], shift, shown)[..., 0]
    shape = (key.shape[0], key.shape[1], phi_k.shape[3], value.shape[3])
    state = phi_k.new_zeros(shape) if initial_state is None else wide(initial_state).expand(shape)
    outputs = [phi_q.new_zeros((*query.shape[:2], 0, value.shape[3]))]
    before = runs.new_zeros((query.shape[0], 1))
    for start in range(0, length, CHUNK):
        rows = slice(start, min(start + CHUNK, length))
        own = runs[:, rows]
        from_state = per_kv_head(torch.matmul, phi_q[:, :, rows], state)
        pairs = per_kv_head(lambda a, b: a @ b.mT, phi_q[:, :, rows], phi_k[:, :, rows])
        near = (own[:, :, None] == own[:, None, :]).tril()[:, None]
        last = own[:, -1:]
        joining, kept = (own == last)[:, None, :, None], (last == before)[:, None, :, None]
        added = phi_k[:, :, rows] * joining
        if gates is not None:
            of_rows, of_pairs = _decays(gates[:, :, rows])
            from_state = from_state * repeated(of_rows, query.shape[1])[..., None]
            pairs = pairs * repeated(of_pairs, query.shape[1])
            added = added * of_pairs[:, :, -1, :, None]
            state = state * of_rows[:, :, -1:, None]
        outputs.append(
            torch.where((own == before)[:, None, :, None], from_state, 0.0)
            + per_kv_head(torch.matmul, torch.where(near, pairs, 0.0), values[:, :, rows])
        )
        state = torch.where(kept, state, 0.0) + added.mT @ values[:, :, rows]
        before = last
    return torch.cat(outputs, dim=2), state


def _decays(log_gates: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of the state before the chunk at row i, and of key j; ``[batch, heads, rows]`` twice over.

    Sums are of the gates between j and i alone: differences of running sums would round small decays after
    large ones.
    """
    rows = log_gates.shape[2]
    forgets = log_gates == -torch.inf
    finite = log_gates.masked_fill(forgets, 0.0)
    after = torch.ones(rows, rows, dtype=torch.bool, device=finite.device).tril(-1)
    between = torch.where(after, finite[..., None], 0.0).cumsum(dim=2)
    times = forgets.cumsum(dim=2)
    reached = times[..., :, None] == times[..., None, :]
    of_rows = torch.where(times == 0, finite.cumsum(dim=2).exp(), 0.0)
    return of_rows, torch.where(reached, between.exp(), 0.0)


def rattention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int,
    scale: float | None,
    rope_theta: float | None,
    rope_frequencies: Tensor | None,
    local_norm_weight: Tensor | None,
    linear_norm_weight: Tensor | None,
    eps: float,
    gate: Tensor | None,
    key_mask: Tensor | None,
    segment_ids: Tensor | None,
    **linear: Any,
) -> list[Tensor]:
    """`rattention.rattention`: output and, where asked for, state."""
    q, k, v = (wide(tensor) for tensor in (query, key, value))
    masks: dict[str, Any] = {"key_mask": key_mask, "segment_ids": segment_ids}
    if gate is None:
        far, *state = residual_linear_attention(q, k, v, window=window, **masks, **linear)
    else:
        far, *state = gated_linear_attention(q, k, v, gate, window=window, scale=1.0, **masks, **linear)
    total = rms_norm(far, linear_norm_weight, eps)
    if segment_ids is not None:
        masks["segment_ids"] = segment_runs(segment_ids)
    if window >= 0:
        if rope_theta is not None or rope_frequencies is not None:
            q, k = plain_rotary(q, k, theta=rope_theta, frequencies=rope_frequencies)
        near = attention(q, k, v, scale=scale, causal=True, window=(window, 0), **masks)[0]
        total = total + rms_norm(near, local_norm_weight, eps)
    return [total.to(query.dtype), *state]


def features(tensor: Tensor, feature_map: str | None) -> Tensor:
    """phi: ``[f(x), f(-x)]`` along the last axis, or x itself."""
    x = wide(tensor)
    if feature_map is None:
        return x
    halves = (x.relu(), (-x).relu()) if feature_map == "relu" else (x.softmax(-1), (-x).softmax(-1))
    return torch.cat(halves, dim=-1)


def rms_norm(rows: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Rows over their root mean square; `weight` is ``[heads, dim]``."""
    normed = rows * (rows.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    return normed if weight is None else normed * weight[:, None]


def _shifted(tensor: Tensor, shift: int, shown: Tensor) -> Tensor:
    batch, heads, length, dim = tensor.shape
    kept = torch.where(shown[:, None, :, None], tensor[:, :, : length - shift], 0.0)
    return torch.cat([tensor.new_zeros((batch, heads, shift, dim)), kept], dim=2)
