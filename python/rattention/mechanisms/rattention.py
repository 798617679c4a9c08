"""RAttention: ``out = RMSNorm(sliding_window(rope(q), rope(k), v)) + RMSNorm(residual_linear(q, k, v))``.

arXiv 2506.15545, section 3: a short sliding window for what is near, linear attention for everything before
it. Two norms with their own weights per head; queries and keys of the linear branch are neither scaled nor
rotated. Work is O(n w); neither branch's output is ever stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention import _core
from rattention._arguments import float32_array, float_array, optional, real_number, truth, words_array
from rattention.mechanisms.gated_linear import reference_gated_linear_attention
from rattention.mechanisms.masks import segment_runs
from rattention.mechanisms.options import RAttentionCall, Typed
from rattention.mechanisms.residual_linear import (
    linear_inputs,
    linear_options,
    linear_result,
    reference_residual_linear_attention,
    states_kept,
)
from rattention.mechanisms.results import LinearResult
from rattention.mechanisms.rotary import reference_rotary, rotary_rates
from rattention.mechanisms.softmax import reference_attention
from rattention.mechanisms.softmax_family import scale_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.mechanisms.options import RAttentionOptions

SMALLEST_EPS = float(np.finfo(np.float32).tiny)


@Typed[RAttentionCall[ArrayLike, NDArray[Any]]]()
def rattention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    scale: float | None = None,
    rope_theta: float | None = None,
    rope_frequencies: ArrayLike | None = None,
    feature_map: str = "softmax",
    local_norm_weight: ArrayLike | None = None,
    linear_norm_weight: ArrayLike | None = None,
    eps: float = 1e-8,
    gate: ArrayLike | None = None,
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    return_state: bool = False,
) -> NDArray[Any] | LinearResult:
    """Sliding-window attention to the last ``window + 1`` keys plus linear attention to those before them.

    Parameters
    ----------
    query:
        ``[batch, heads, length, head_dim]``, float32, bfloat16 or float16, any strides; not rotated.
    key, value:
        ``[batch, kv_heads, length, head_dim]`` and ``[batch, kv_heads, length, value_dim]``. ``kv_heads``
        must divide ``heads``; query head h reads key/value head ``h // (heads // kv_heads)``.
    window:
        w >= -1: row t sees the keys ``t - w ... t`` through softmax attention and ``0 ... t - w - 1`` through
        the state. Hugging Face's ``sliding_window=W`` is ``window=W - 1``. -1 leaves linear attention alone
        (in flash-attn it is an infinite window).
    scale:
        Factor on the scores of the sliding window, ``1 / sqrt(head_dim)`` by default.
    rope_theta:
        Base of the rotary embedding ("rotate-half", absolute positions from 0) of the sliding window; None is
        no embedding. Needs an even head_dim.
    rope_frequencies:
        In place of `rope_theta`, for scaled embeddings (Llama 3.1, YaRN): real numbers ``[head_dim / 2]``,
        the angles in radians by which each pair turns per position; 0 leaves a pair unrotated. With shape
        ``[2, head_dim / 2]``, the second row scales the rotated pairs. Not differentiable.
    feature_map, initial_state, key_mask, segment_ids:
        As in `residual_linear_attention`; the last two hide keys from both branches: a segment ends where
        the id changes.
    local_norm_weight, linear_norm_weight:
        ``[heads, value_dim]``, weights of the two norms; 1 by default.
    eps:
        Inside the root of the norms' mean squares, > 0: a row of zeros stays zero.
    gate:
        ``[batch, kv_heads, length]``, the log_gate of `gated_linear_attention`: at each token the state of
        the linear branch decays by ``exp(gate)``. None: it does not. Caches for decoding have no gates.
    return_state:
        Also return the state that the last row reads.

    Returns
    -------
    The output ``[batch, heads, length, value_dim]`` in the dtype of the inputs, or with `return_state` a
    `LinearResult` of it and the state, as in `residual_linear_attention`.

    Raises
    ------
    ValueError
        Shapes or values that do not fit; the message names the argument.
    TypeError
        A dtype other than the three above, or objects that are no arrays.
    """
    arrays = linear_inputs(query, key, value)
    linear = feature_map, initial_state, key_mask, segment_ids
    branches = scale, rope_theta, rope_frequencies, local_norm_weight, linear_norm_weight, eps, gate
    rule, norms = _rules(arrays[0], window, *branches, *linear)
    made = _core.rattention(*arrays, rule, **norms, return_state=truth("return_state", return_state))
    return linear_result(made, query)


def rattention_keeping(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    **options: Unpack[RAttentionOptions[ArrayLike]],
) -> LinearResult:
    """Output and state, and as ``kept`` what the backward pass would compute again.

    That is, in float32, the output of both branches, statistics of the softmax, and a state every few
    hundred tokens: ``2 * value_dim + 2`` numbers for each head and token, and a little.
    """
    arrays = linear_inputs(query, key, value)
    rule, norms = _rules(arrays[0], window, **options)
    result = linear_result(_core.rattention(*arrays, rule, **norms, return_state=True, keep=True), query)
    assert isinstance(result, LinearResult)
    return result


def numbers_kept(
    query_shape: Sequence[int], key_shape: Sequence[int], value_dim: int, initial_state: bool
) -> int:
    """Numbers in the ``kept`` of `rattention_keeping`, for tracers."""
    batch, heads, length, _ = query_shape
    states = states_kept(query_shape, key_shape, value_dim, initial_state)
    return batch * heads * length * (2 + 2 * value_dim) + states


def rattention_backward(
    grad_output: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    grad_state: ArrayLike | None = None,
    kept: NDArray[np.int32] | None = None,
    **options: Unpack[RAttentionOptions[ArrayLike]],
) -> dict[str, NDArray[np.float32]]:
    """Gradients of ``sum(output * grad_output)``, plus ``sum(state * grad_state)`` where that is given.

    By name, float32: query, key, value, local_norm_weight, linear_norm_weight (also where the weights were
    left at 1) and, where given, gate and initial_state. Both branches are computed again, unless `kept` is
    given, that of the result of `rattention_keeping` with the same arguments.
    """
    arrays = linear_inputs(query, key, value)
    rule, norms = _rules(arrays[0], window, **options)
    grad = float_array("grad_output", grad_output, 4)
    return _core.rattention_backward(
        *arrays,
        rule,
        grad,
        **norms,
        grad_state=optional(float32_array, "grad_state", grad_state, 4),
        kept=optional(words_array, "kept", kept, 1),
    )


def reference_rattention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    scale: float | None = None,
    rope_theta: float | None = None,
    rope_frequencies: ArrayLike | None = None,
    local_norm_weight: ArrayLike | None = None,
    linear_norm_weight: ArrayLike | None = None,
    eps: float = 1e-8,
    gate: ArrayLike | None = None,
    feature_map: str = "softmax",
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`rattention` by its definition, in float64: ``(output, state)``."""
    hidden: dict[str, Any] = {"key_mask": key_mask, "segment_ids": segment_ids}
    inputs, linear = (
        (query, key, value),
        {"feature_map": feature_map, "initial_state": initial_state, **hidden},
    )
    if gate is None:
        far, state = reference_residual_linear_attention(*inputs, window=window, **linear)
    else:
        far, state = reference_gated_linear_attention(*inputs, gate, window=window, scale=1.0, **linear)
    near = np.zeros_like(far)
    if segment_ids is not None:
        hidden["segment_ids"] = segment_runs(np.asarray(segment_ids))
    if window >= 0:
        rates = rotary_rates(rope_theta, rope_frequencies, np.shape(query)[3])
        q, k = (_turned(np.asarray(a).astype(np.float64), rates) for a in (query, key))
        near = reference_attention(q, k, value, causal=True, window=window, scale=scale, **hidden).output
    return (
        reference_rms_norm(near, local_norm_weight, eps) + reference_rms_norm(far, linear_norm_weight, eps),
        state,
    )


def _turned(rows: NDArray[np.float64], rates: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if rates is None:
        return rows
    angles = np.arange(rows.shape[2])[:, None] * rates[0]
    return reference_rotary(rows, cos=rates[1] * np.cos(angles), sin=rates[1] * np.sin(angles))


def reference_rms_norm(
    rows: NDArray[np.float64], weight: ArrayLike | None, eps: float
) -> NDArray[np.float64]:
    """Rows ``[batch, heads, length, dim]`` over the root of their mean square, times ``[heads, dim]``."""
    with np.errstate(invalid="ignore"):
        squares = (rows**2).sum(axis=-1, keepdims=True) / max(rows.shape[-1], 1)
        scaled: NDArray[np.float64] = rows / np.sqrt(squares + eps)
    return scaled if weight is None else scaled * np.asarray(weight).astype(np.float64)[:, None]


def _rules(
    query: NDArray[Any],
    window: int,
    scale: float | None = None,
    rope_theta: float | None = None,
    rope_frequencies: ArrayLike | None = None,
    local_norm_weight: ArrayLike | None = None,
    linear_norm_weight: ArrayLike | None = None,
    eps: float = 1e-8,
    gate: ArrayLike | None = None,
    *linear: Any,
    **more_linear: Any,
) -> tuple[_core.LinearOptions, dict[str, Any]]:
    """The linear branch's options, which are those of `linear_options`, and what the sum takes besides."""
    small = real_number("eps", eps)
    if not small >= SMALLEST_EPS:
        raise ValueError(f"eps must be a positive float32 number, got {eps!r}")
    norms = {
        "scale": scale_of(scale, query),
        "rope": rotary_rates(rope_theta, rope_frequencies, query.shape[3]),
        "local_norm_weight": optional(float32_array, "local_norm_weight", local_norm_weight, 2),
        "linear_norm_weight": optional(float32_array, "linear_norm_weight", linear_norm_weight, 2),
        "eps": small,
    }
    return linear_options(window, *linear, **more_linear, gate=gate), norms
