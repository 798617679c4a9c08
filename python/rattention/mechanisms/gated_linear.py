"""Gated linear attention: ``out_t = scale phi(q_t) S_{t-w-1}`` with ``S_t = a_t S_{t-1} + phi(k_t)^T v_t``.

A state that decays by ``a_t = exp(log_gate_t)``. With the same gate everywhere it is the retention of RetNet
(arXiv 2307.08621, section 2.1, eq. 6, without its rotation and norm) and Lightning attention (arXiv
2405.17381); with gates made of the input it is the core of Mamba2 (arXiv 2405.21060, "SSD": q, k and v are
its C, B and X, the last times the step size). With a gate per key channel, ``S_t = Diag(a_t) S_{t-1} + k_t^T
v_t``, it is Gated Linear Attention (GLA, arXiv 2312.06635, section 4.1, eq. 3), which runs on the kernels of
the delta rule, without its correction. Work is O(n).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention import _core
from rattention._arguments import float32_array, float_array, optional, truth, words_array
from rattention.mechanisms.gated_delta import delta_options_of
from rattention.mechanisms.gates import log_gates, reference_gates, require_whole_past
from rattention.mechanisms.masks import segment_runs
from rattention.mechanisms.options import GatedLinearCall, Typed
from rattention.mechanisms.residual_linear import (
    FEATURE_MAPS,
    feature_map_name,
    linear_inputs,
    linear_result,
    options_with_map,
    reference_features,
)
from rattention.mechanisms.results import LinearResult
from rattention.mechanisms.softmax_family import scale_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rattention.mechanisms.options import GatedLinearOptions

FORWARD: dict[type, Callable[..., Any]] = {
    _core.LinearOptions: _core.residual_linear_attention,
    _core.DeltaOptions: _core.gated_delta_rule,
}
"""By the options of gates per head, and of gates per channel."""
BACKWARD: dict[type, Callable[..., dict[str, NDArray[np.float32]]]] = {
    _core.LinearOptions: _core.residual_linear_attention_backward,
    _core.DeltaOptions: _core.gated_delta_rule_backward,
}


@Typed[GatedLinearCall[ArrayLike, NDArray[Any]]]()
def gated_linear_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    *,
    window: int = -1,
    feature_map: str | None = None,
    scale: float | None = None,
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    return_state: bool = False,
) -> NDArray[Any] | LinearResult:
    """Causal linear attention to a state that decays.

    Parameters
    ----------
    query:
        ``[batch, heads, length, head_dim]``, float32, bfloat16 or float16, any strides; neither scaled nor
        rotated.
    key, value:
        ``[batch, kv_heads, length, head_dim]`` and ``[batch, kv_heads, length, value_dim]``. ``kv_heads``
        must divide ``heads``; query head h reads key/value head ``h // (heads // kv_heads)``.
    log_gate:
        ``[batch, kv_heads, length]``, the natural logarithm of the decay at each token, <= 0, of any of those
        dtypes. 0 keeps the state, -inf forgets all of it. Or ``[batch, kv_heads, length, head_dim]`` for a
        gate per key channel, which decays that channel's row of the state; -inf forgets all of it that is
        finite. Query heads that share a key/value head then compute its state once each.
    window:
        w >= -1: row t sees the keys ``0 ... t - w - 1``, as they are then. By default it sees its own as
        well; with a gate per channel there is no other choice.
    feature_map:
        None leaves queries and keys as they are; ``"softmax"`` and ``"relu"`` are those of
        `residual_linear_attention`, of twice as many features. With a gate per channel there is None alone.
    scale:
        Factor on the output, ``1 / sqrt(head_dim)`` by default.
    initial_state:
        ``S`` before the first key, ``[batch, kv_heads or heads, features, value_dim]``, where features are
        head_dim, or twice that with a feature map; 0 by default. It decays from the first gate on.
    key_mask:
        Bool ``[batch, length]``: keys that are False add nothing to the state, and it does not decay there,
        whatever their gate is.
    segment_ids:
        Integers ``[batch, length]``. The state is reset to 0 where the id changes: only the first segment
        sees the initial state.
    return_state:
        Also return the state that the last row reads.

    Returns
    -------
    The output ``[batch, heads, length, value_dim]`` in the dtype of the inputs, or with `return_state` a
    `LinearResult`, which unpacks into it and a float32 state ``[batch, kv_heads, features, value_dim]``, with
    one per query head if the initial state has that. A row that sees nothing gives 0.

    Raises
    ------
    ValueError
        Shapes or values that do not fit, such as a gate > 0 or NaN; the message names the argument.
    TypeError
        A dtype other than the three above, or objects that are no arrays.

    Notes
    -----
    To continue a sequence, see `residual_linear_attention`: with the default window the state is all there
    is to pass on.
    """
    arrays = linear_inputs(query, key, value)
    masks = initial_state, key_mask, segment_ids
    options = _gated_options(arrays[0], log_gate, window, feature_map, scale, *masks)
    made = FORWARD[type(options)](*arrays, options, return_state=truth("return_state", return_state))
    return linear_result(made, query)


def gated_linear_attention_keeping(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    **options: Unpack[GatedLinearOptions[ArrayLike]],
) -> LinearResult:
    """Output and state, and as ``kept`` the states that the backward pass would sum again."""
    arrays = linear_inputs(query, key, value)
    rule = _gated_options(arrays[0], log_gate, **options)
    made = FORWARD[type(rule)](*arrays, rule, return_state=True, keep=True)
    result = linear_result(made, query)
    assert isinstance(result, LinearResult)
    return result


def gated_linear_attention_backward(
    grad_output: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    *,
    grad_state: ArrayLike | None = None,
    kept: NDArray[np.int32] | None = None,
    **options: Unpack[GatedLinearOptions[ArrayLike]],
) -> dict[str, NDArray[np.float32]]:
    """Gradients of ``sum(output * grad_output)``, plus ``sum(state * grad_state)`` where that is given.

    By name, float32: query, key, value, log_gate (0 where the gate forgets everything) and, where given,
    initial_state. Nothing is needed of the forward pass; with `kept`, that of the result of
    `gated_linear_attention_keeping` with the same arguments, states are not summed again.
    """
    arrays = linear_inputs(query, key, value)
    rule = _gated_options(arrays[0], log_gate, **options)
    return BACKWARD[type(rule)](
        *arrays,
        rule,
        float_array("grad_output", grad_output, 4),
        grad_state=optional(float32_array, "grad_state", grad_state, 4),
        kept=optional(words_array, "kept", kept, 1),
    )


def reference_gated_linear_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    *,
    window: int = -1,
    feature_map: str | None = None,
    scale: float | None = None,
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`gated_linear_attention` by its recurrence, in float64: ``(output, state)``.

    In IEEE arithmetic, but that a gate of 0 forgets infinity and NaN, too.
    """
    q, k, v, logs = (np.asarray(a).astype(np.float64) for a in (query, key, value, log_gate))
    (batch, heads, length, dim), kv_heads = q.shape, k.shape[1]
    phi_q, phi_k = (a if feature_map is None else reference_features(a, feature_map) for a in (q, k))
    segment = segment_runs(np.zeros((batch, length)) if segment_ids is None else np.asarray(segment_ids))
    shown = np.ones((batch, length), bool) if key_mask is None else np.asarray(key_mask)
    gates = reference_gates(logs, shown)
    gates = gates[..., None] if gates.ndim == 3 else gates
    start = np.zeros((batch, kv_heads, phi_k.shape[3], v.shape[3]))
    start = start if initial_state is None else np.asarray(initial_state).astype(np.float64)
    factor = dim**-0.5 if scale is None else scale
    output, state = np.zeros((batch, heads, length, v.shape[3])), start.copy()
    group = np.arange(heads) * kv_heads // heads
    own = np.arange(heads) * start.shape[1] // heads
    for b, t in np.ndindex(batch, length):
        if t == 0 or segment[b, t] != segment[b, t - 1]:
            first, total = t, (start if t == 0 else np.zeros_like(start))[b, own]
            seen = t == 0 and initial_state is not None
        j = t - min(window, length) - 1
        with np.errstate(invalid="ignore"):
            if j >= first and shown[b, j]:
                decay, seen = gates[b, group, j, :, None], True
                joining = phi_k[b, group, j, :, None] * v[b, group, j, None]
                total = np.where(decay == 0, 0.0, decay * total) + joining
            if seen:
                output[b, :, t] = factor * (phi_q[b, :, t, :, None] * total).sum(axis=1)
        if t == length - 1:
            state[b, own] = total
    return output, state


def _gated_options(
    query: NDArray[Any],
    log_gate: ArrayLike,
    window: int = -1,
    feature_map: str | None = None,
    scale: float | None = None,
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
) -> _core.LinearOptions | _core.DeltaOptions:
    """In the core's form, which checks the shapes."""
    gates, factor, masks = log_gates(log_gate), scale_of(scale, query), (initial_state, key_mask, segment_ids)
    if gates.ndim == 4:
        require_whole_past(window, feature_map)
        return delta_options_of(gates, factor, *masks)
    rule = any_feature_map(feature_map)
    return options_with_map(rule, window, *masks, gate=gates, gate_name="log_gate", scale=factor)


def any_feature_map(name: str | None) -> _core.FeatureMap:
    """One of `FEATURE_MAPS`, or none at all."""
    return _core.FeatureMap.none if name is None else FEATURE_MAPS[feature_map_name(name)]
