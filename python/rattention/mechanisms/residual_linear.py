"""Residual linear attention: ``out_t = phi(q_t) S_{t-w-1}`` with ``S_t = S_{t-1} + phi(k_t)^T v_t``.

The branch of RAttention that sees what its sliding window does not (arXiv 2506.15545, section 3). The
feature map is ``phi(x) = [f(x), f(-x)]`` (Hedgehog, arXiv 2402.04347); there is no normaliser. Work is O(n).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention import _core
from rattention._arguments import (
    bool_array,
    brief,
    float32_array,
    float_array,
    integer_array,
    optional,
    same_dtype,
    truth,
    whole_number,
    words_array,
)
from rattention.mechanisms.gates import gates_per_head
from rattention.mechanisms.masks import segment_runs
from rattention.mechanisms.options import LinearCall, Typed
from rattention.mechanisms.results import LinearResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.mechanisms.options import LinearOptions

FEATURE_MAPS = {"softmax": _core.FeatureMap.softmax, "relu": _core.FeatureMap.relu}


@Typed[LinearCall[ArrayLike, NDArray[Any]]]()
def residual_linear_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    feature_map: str = "softmax",
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    return_state: bool = False,
) -> NDArray[Any] | LinearResult:
    """Causal linear attention to all keys but the last ``window + 1``.

    Parameters
    ----------
    query:
        ``[batch, heads, length, head_dim]``, float32, bfloat16 or float16, any strides; neither scaled nor
        rotated.
    key, value:
        ``[batch, kv_heads, length, head_dim]`` and ``[batch, kv_heads, length, value_dim]``. ``kv_heads``
        must divide ``heads``; query head h reads key/value head ``h // (heads // kv_heads)``.
    window:
        w >= -1: row t sees the keys ``0 ... t - w - 1``. -1 is plain causal linear attention, which sees
        itself (in flash-attn -1 is an infinite window); with w >= length - 1 rows see nothing but the initial
        state.
    feature_map:
        f of phi: ``"softmax"`` over head_dim, or ``"relu"``; in float32.
    initial_state:
        ``S`` before the first key, ``[batch, kv_heads or heads, 2 * head_dim, value_dim]``; 0 by default.
    key_mask:
        Bool ``[batch, length]``: keys that are False add nothing to the state.
    segment_ids:
        Integers ``[batch, length]``. The state is reset to 0 where the id changes: only the first segment
        sees the initial state.
    return_state:
        Also return the state that the last row reads.

    Returns
    -------
    The output ``[batch, heads, length, value_dim]`` in the dtype of the inputs, or with `return_state` a
    `LinearResult`, which unpacks into it and a float32 state ``[batch, kv_heads, 2 * head_dim, value_dim]``,
    with one per query head if the initial state has that. A row that sees nothing gives 0.

    Raises
    ------
    ValueError
        Shapes or values that do not fit; the message names the argument.
    TypeError
        A dtype other than the three above, or objects that are no arrays.

    Notes
    -----
    The last ``window + 1`` keys are not in the returned state, because no row has seen them yet. To continue
    the sequence, pass that state and repeat those last ``window + 1`` tokens (or all, if there are fewer)
    before the new ones; drop their output rows, which repeat earlier positions.
    """
    arrays = linear_inputs(query, key, value)
    options = linear_options(window, feature_map, initial_state, key_mask, segment_ids)
    made = _core.residual_linear_attention(*arrays, options, return_state=truth("return_state", return_state))
    return linear_result(made, query)


def residual_linear_attention_keeping(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    **options: Unpack[LinearOptions[ArrayLike]],
) -> LinearResult:
    """Output and state, and as ``kept`` the states that the backward pass would sum again."""
    arrays = linear_inputs(query, key, value)
    rule = linear_options(window, **options)
    made = _core.residual_linear_attention(*arrays, rule, return_state=True, keep=True)
    result = linear_result(made, query)
    assert isinstance(result, LinearResult)
    return result


def states_kept(
    query_shape: Sequence[int], key_shape: Sequence[int], value_dim: int, initial_state: bool
) -> int:
    """Numbers in the ``kept`` of `residual_linear_attention_keeping`, for tracers; some of them unused.

    A state every few hundred tokens, of any feature map, and what is left of the one before it; from an
    initial state its gradient flows through all of them.
    """
    batch, kv_heads, length, dim = key_shape
    states = length // _core.stretch_tokens(query_shape[1] // max(kv_heads, 1)) + 3 * initial_state
    return batch * kv_heads * states * (2 * dim * (-(-value_dim // 16) * 16) + 16)


def linear_result(
    made: tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[np.int32] | None], query: ArrayLike
) -> NDArray[Any] | LinearResult:
    """Of what the core returns: output, state or None, what is kept or None."""
    output, state, kept = made
    output = as_given(output, query)
    return output if state is None else LinearResult.of(output, state, kept)


def residual_linear_attention_backward(
    grad_output: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    grad_state: ArrayLike | None = None,
    kept: NDArray[np.int32] | None = None,
    **options: Unpack[LinearOptions[ArrayLike]],
) -> dict[str, NDArray[np.float32]]:
    """Gradients of ``sum(output * grad_output)``, plus ``sum(state * grad_state)`` where that is given.

    By name, float32: query, key, value and, where given, initial_state. Nothing is needed of the forward
    pass; with `kept`, that of the result of `residual_linear_attention_keeping` with the same arguments,
    states are not summed again.
    """
    arrays = linear_inputs(query, key, value)
    grad = float_array("grad_output", grad_output, 4)
    return _core.residual_linear_attention_backward(
        *arrays,
        linear_options(window, **options),
        grad,
        grad_state=optional(float32_array, "grad_state", grad_state, 4),
        kept=optional(words_array, "kept", kept, 1),
    )


def reference_residual_linear_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    window: int,
    feature_map: str = "softmax",
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`residual_linear_attention` by its definition, in float64: ``(output, state)``.

    A row is ``phi(q) S``, ``S`` the sum of ``phi(k_j)^T v_j`` over the keys it sees, in IEEE arithmetic:
    infinity in a value times a feature of 0 is NaN. No other key can touch it.
    """
    q, k, v = (np.asarray(a).astype(np.float64) for a in (query, key, value))
    (batch, heads, length, _), kv_heads = q.shape, k.shape[1]
    phi_q, phi_k = (reference_features(a, feature_map) for a in (q, k))
    ids = np.zeros((batch, length)) if segment_ids is None else np.asarray(segment_ids)
    segment = segment_runs(ids)
    shown = np.ones((batch, length), bool) if key_mask is None else np.asarray(key_mask)
    old = np.arange(length) < np.arange(length)[:, None] - min(window, length)
    visible = old & shown[:, None] & (segment[:, :, None] == segment[:, None])

    start = np.zeros((batch, kv_heads, 2 * q.shape[3], v.shape[3]))
    start = start if initial_state is None else np.asarray(initial_state).astype(np.float64)
    output = np.zeros((batch, heads, length, v.shape[3]))
    state = start.copy()
    group = np.arange(heads) * kv_heads // heads
    own = np.arange(heads) * start.shape[1] // heads
    for b, t in np.ndindex(batch, length):
        if t == 0 or segment[b, t] != segment[b, t - 1]:
            total = (start if t == 0 else np.zeros_like(start))[b, own]
        joining = t - min(window, length) - 1
        with np.errstate(invalid="ignore"):
            if joining >= 0 and visible[b, t, joining]:
                total = total + phi_k[b, group, joining, :, None] * v[b, group, joining, None]
            if visible[b, t].any() or (initial_state is not None and segment[b, t] == 0):
                output[b, :, t] = (phi_q[b, :, t, :, None] * total).sum(axis=1)
        if t == length - 1:
            state[b, own] = total
    return output, state


def reference_features(x: NDArray[np.float64], feature_map: str) -> NDArray[np.float64]:
    """``[f(x), f(-x)]`` along the last axis."""
    if feature_map == "relu":
        return np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis=-1)
    with np.errstate(invalid="ignore"):
        halves = [np.exp(a - a.max(axis=-1, keepdims=True)) for a in (x, -x)]
        return np.concatenate([a / a.sum(axis=-1, keepdims=True) for a in halves], axis=-1)


def linear_inputs(
    query: ArrayLike, key: ArrayLike, value: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Query, key and value as arrays of rank 4 and one dtype."""
    q, k, v = float_array("query", query, 4), float_array("key", key, 4), float_array("value", value, 4)
    if not q.dtype is k.dtype is v.dtype:
        same_dtype(query=q, key=k, value=v)
    return q, k, v


def linear_options(
    window: int,
    feature_map: str = "softmax",
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    **gates: Any,
) -> _core.LinearOptions:
    """What all of the linear family take, in the core's form; the core checks the shapes."""
    chosen = FEATURE_MAPS[feature_map_name(feature_map)]
    return options_with_map(chosen, window, initial_state, key_mask, segment_ids, **gates)


def options_with_map(
    feature_map: _core.FeatureMap,
    window: int,
    initial_state: ArrayLike | None,
    key_mask: ArrayLike | None,
    segment_ids: ArrayLike | None,
    *,
    gate: ArrayLike | None = None,
    gate_name: str = "gate",
    scale: float = 1.0,
) -> _core.LinearOptions:
    """The same with a feature map of the core's, and with gates; `scale` counts beside those alone."""
    reach = whole_number("window", window)
    if reach < -1:
        raise ValueError(f"window must be >= -1, got {brief(window)}")
    return _core.LinearOptions(
        window=min(reach, 2**62),
        feature_map=feature_map,
        log_gate=None if gate is None else gates_per_head(gate_name, gate),
        scale=scale,
        initial_state=optional(float32_array, "initial_state", initial_state, 4),
        key_mask=optional(bool_array, "key_mask", key_mask, 2),
        segment_ids=optional(integer_array, "segment_ids", segment_ids, 2),
    )


def feature_map_name(name: str) -> str:
    """`name`, if it is one of `FEATURE_MAPS`."""
    if not isinstance(name, str):
        raise TypeError(f"feature_map must be a string, got {brief(name)}")
    if name not in FEATURE_MAPS:
        raise ValueError(f"feature_map must be one of {', '.join(FEATURE_MAPS)}, got {brief(name)}")
    return name


def as_given(output: NDArray[Any], like: ArrayLike) -> NDArray[Any]:
    """bfloat16, which the core returns as its storage, in the dtype of the user's array."""
    return output.view(np.asarray(like).dtype) if output.dtype == np.uint16 else output
