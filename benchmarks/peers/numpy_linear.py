"""The linear family by its definition, a few rows at a time: the package's reference makes all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rattention.mechanisms.rattention import reference_rms_norm
from rattention.mechanisms.residual_linear import reference_features
from rattention.mechanisms.rotary import reference_rotary
from rattention.mechanisms.softmax import reference_attention

from benchmarks.peers.numpy_reference import NAME, sampled_rows
from benchmarks.race import Peer, Runner, Setup

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer


def residual_linear(setup: Setup, inputs: Inputs, *, window: int) -> Peer:
    return _peer(setup, inputs, lambda rows: linear_rows(inputs, rows, window))


def gated_linear(setup: Setup, inputs: Inputs, log_gate: NDArray[np.float32]) -> Peer:
    return _peer(setup, inputs, lambda rows: gated_rows(inputs, log_gate, rows))


def rattention(setup: Setup, inputs: Inputs, *, window: int, rope_theta: float) -> Peer:
    return _peer(setup, inputs, lambda rows: rattention_rows(inputs, rows, window, rope_theta))


def _peer(setup: Setup, inputs: Inputs, rows_of: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> Peer:
    rows = sampled_rows(setup, inputs.length)
    runner = Runner(lambda: rows_of(rows), lambda output: {"output": output})
    return Peer(NAME, lambda: runner, rows=rows, timed=setup.quick)


def linear_rows(inputs: Inputs, rows: NDArray[np.int64], window: int) -> NDArray[np.float64]:
    """``sum_{j < t - w} (phi(q_t) . phi(k_j)) v_j`` for the rows t."""
    query, key, value = (array.astype(np.float64) for array in inputs)
    features, keys = (reference_features(a, "softmax") for a in (query[:, :, rows], key))
    output = np.zeros((*features.shape[:3], value.shape[3]))
    for i, row in enumerate(rows):
        seen = slice(0, max(0, row - window))
        weights = features[:, :, i, None] @ keys[:, :, seen].swapaxes(2, 3)
        output[:, :, i] = (weights @ value[:, :, seen])[:, :, 0]
    return output


def gated_rows(inputs: Inputs, log_gate: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """``sum_{j <= t} (q_t . k_j) e^(sum of the gates after j) v_j / sqrt(head_dim)`` for the rows t."""
    query, key, value = (array.astype(np.float64) for array in inputs)
    total = log_gate.astype(np.float64).cumsum(axis=2)
    output = np.zeros((*query.shape[:2], len(rows), value.shape[3]))
    for i, row in enumerate(rows):
        left = np.exp(total[:, :, row, None] - total[:, :, : row + 1])
        weights = (key[:, :, : row + 1] @ query[:, :, row, :, None])[..., 0] * left
        output[:, :, i] = (weights[:, :, None] @ value[:, :, : row + 1])[:, :, 0]
    return output / query.shape[3] ** 0.5


def rattention_rows(
    inputs: Inputs, rows: NDArray[np.int64], window: int, rope_theta: float
) -> NDArray[np.float64]:
    """Both branches after their norms, added."""
    query, key = (reference_rotary(a.astype(np.float64), rope_theta) for a in inputs[:2])
    near = [
        reference_attention(
            query[:, :, [row]], key, inputs.value, causal=True, window=window, query_offset=int(row)
        ).output
        for row in rows
    ]
    branches = np.concatenate(near, axis=2), linear_rows(inputs, rows, window)
    return sum((reference_rms_norm(b, None, 1e-8) for b in branches), np.zeros(()))


def linear_value_gradient(setup: Setup, inputs: Inputs, grad: NDArray[np.float32], *, window: int) -> Peer:
    """That of the values is residual linear attention backwards in time, queries and keys exchanged."""
    reversed_in_time = type(inputs)(inputs.key[:, :, ::-1], inputs.query[:, :, ::-1], grad[:, :, ::-1])
    rows = sampled_rows(setup, inputs.length)

    def call() -> Answer:
        mirrored = inputs.length - 1 - rows
        return {"value": linear_rows(reversed_in_time, mirrored, window)}

    return Peer(NAME, lambda: Runner(call, lambda answer: answer), rows=rows, timed=setup.quick)


def step_after(inputs: Inputs, tokens: int, window: int, rope_theta: float) -> NDArray[np.float64]:
    """The row of the first token after `tokens` of the inputs, which begin again where they end.

    Every token is counted as often as it came, and rotations are relative: only the window's are made.
    """
    came = np.append(np.arange(tokens) % inputs.length, 0)
    far, near = came[: -window - 1], came[-window - 1 :]
    query, key, value = (array.astype(np.float64) for array in inputs)
    counts = np.bincount(far, minlength=inputs.length)
    phi_q, phi_k = (reference_features(a, "softmax") for a in (query[:, :, :1], key))
    linear = (phi_q @ phi_k.swapaxes(2, 3) * counts) @ value
    turned_q, turned_k = (reference_rotary(a[:, :, near], rope_theta) for a in (query, key))
    local = reference_attention(turned_q[:, :, -1:], turned_k, value[:, :, near]).output
    return reference_rms_norm(local, None, 1e-8) + reference_rms_norm(linear, None, 1e-8)
