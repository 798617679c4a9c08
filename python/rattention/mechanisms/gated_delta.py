"""The gated delta rule: ``out_t = scale q_t S_t``, ``S_t = D_t S_{t-1} + b_t k_t^T (v_t - k_t D_t S_{t-1})``.

A state that is corrected, by a share b_t, to what it should return for a key. D_t is a decay per head (Gated
DeltaNet, arXiv 2412.06464, section 3.1, eq. 10), 1 (DeltaNet, arXiv 2406.06484, section 2.2), or one per key
channel (Kimi Delta Attention, arXiv 2510.26692, section 3). Forward it runs token by token; the backward
pass takes chunks of tokens as triangular systems (the WY form, arXiv 2406.06484, section 3). Work is O(n).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rattention import _core
from rattention._arguments import (
    bool_array,
    float32_array,
    float_array,
    integer_array,
    optional,
    truth,
    words_array,
)
from rattention.mechanisms.gates import log_gates, reference_gates
from rattention.mechanisms.masks import segment_runs
from rattention.mechanisms.options import GatedDeltaCall, Typed
from rattention.mechanisms.residual_linear import linear_inputs, linear_result
from rattention.mechanisms.results import LinearResult
from rattention.mechanisms.softmax_family import scale_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.mechanisms.options import GatedDeltaOptions

NORM_EPS = 1e-6
"""Added to the squared length of a query or key before the root, as Transformers and flash-linear-attention
do."""
CHUNK = 48
"""Tokens between two states that a forward pass keeps."""


@Typed[GatedDeltaCall[ArrayLike, NDArray[Any]]]()
def gated_delta_rule(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    beta: ArrayLike,
    *,
    scale: float | None = None,
    normalize: bool = False,
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    return_state: bool = False,
) -> NDArray[Any] | LinearResult:
    """Gated DeltaNet, and with a gate per channel Kimi Delta Attention (KDA).

    Parameters
    ----------
    query:
        ``[batch, heads, length, head_dim]``, float32, bfloat16 or float16, any strides.
    key, value:
        ``[batch, kv_heads, length, head_dim]`` and ``[batch, kv_heads, length, value_dim]``. ``kv_heads``
        must divide ``heads``; query head h reads key/value head ``h // (heads // kv_heads)``.
    log_gate:
        The natural logarithm of the decay at each token, <= 0, of any of those dtypes: ``[batch, heads,
        length]``, or ``[batch, heads, length, head_dim]`` for one per key channel. 0 keeps the state (then
        this is DeltaNet), -inf forgets all of it that is finite.
    beta:
        ``[batch, heads, length]``, how much of its value a token writes, of any of those dtypes: usually from
        0 to 1, or to 2 for states that may change sign.
    scale:
        Factor on the queries, ``1 / sqrt(head_dim)`` by default.
    normalize:
        Take queries and keys to length 1, as the models do: ``x / sqrt(sum(x^2) + 1e-6)``. The recurrence
        grows without bound where ``beta * sum(k^2)`` exceeds 2.
    initial_state:
        ``S`` before the first token, ``[batch, heads, head_dim, value_dim]``; 0 by default.
    key_mask:
        Bool ``[batch, length]``: tokens that are False leave the state as it is, whatever they hold.
    segment_ids:
        Integers ``[batch, length]``. The state is reset to 0 where the id changes: only the first segment
        sees the initial state.
    return_state:
        Also return the state after the last token.

    Returns
    -------
    The output ``[batch, heads, length, value_dim]`` in the dtype of the inputs, or with `return_state` a
    `LinearResult`, which unpacks into it and a float32 state ``[batch, heads, head_dim, value_dim]``: the
    initial state of what follows. A row that sees nothing gives 0.

    Raises
    ------
    ValueError
        Shapes or values that do not fit, such as a gate > 0 or NaN; the message names the argument.
    TypeError
        A dtype other than the three above, or objects that are no arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import rattention as ra
    >>> query, key, value = np.random.default_rng(0).standard_normal((3, 1, 4, 100, 32), np.float32)
    >>> log_gate, beta = np.full((1, 4, 100), -0.1, np.float32), np.full((1, 4, 100), 0.5, np.float32)
    >>> ra.gated_delta_rule(query, key, value, log_gate, beta, normalize=True).shape
    (1, 4, 100, 32)
    """
    arrays = linear_inputs(query, key, value)
    options = delta_options(arrays[0], log_gate, beta, scale, normalize, initial_state, key_mask, segment_ids)
    made = _core.gated_delta_rule(*arrays, options, return_state=truth("return_state", return_state))
    return linear_result(made, query)


def gated_delta_rule_keeping(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    beta: ArrayLike,
    **options: Unpack[GatedDeltaOptions[ArrayLike]],
) -> LinearResult:
    """Output and state, and as ``kept`` the states before each chunk but the first."""
    arrays = linear_inputs(query, key, value)
    rule = delta_options(arrays[0], log_gate, beta, **options)
    result = linear_result(_core.gated_delta_rule(*arrays, rule, return_state=True, keep=True), query)
    assert isinstance(result, LinearResult)
    return result


def delta_states_kept(
    query_shape: Sequence[int], key_shape: Sequence[int], value_dim: int, initial_state: bool
) -> int:
    """Numbers in the ``kept`` of `gated_delta_rule_keeping`, for tracers."""
    batch, heads, length, dim = query_shape
    return batch * heads * ((length - (length > 0)) // CHUNK) * dim * (-(-value_dim // 16) * 16)


def gated_delta_rule_backward(
    grad_output: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    beta: ArrayLike,
    *,
    grad_state: ArrayLike | None = None,
    kept: NDArray[np.int32] | None = None,
    **options: Unpack[GatedDeltaOptions[ArrayLike]],
) -> dict[str, NDArray[np.float32]]:
    """Gradients of ``sum(output * grad_output)``, plus ``sum(state * grad_state)`` where that is given.

    By name, float32: query, key, value, log_gate (0 where the gate forgets everything), beta and, where
    given, initial_state. Nothing is needed of the forward pass; with `kept`, that of the result of
    `gated_delta_rule_keeping` with the same arguments, states are not computed again.
    """
    arrays = linear_inputs(query, key, value)
    return _core.gated_delta_rule_backward(
        *arrays,
        delta_options(arrays[0], log_gate, beta, **options),
        float_array("grad_output", grad_output, 4),
        grad_state=optional(float32_array, "grad_state", grad_state, 4),
        kept=optional(words_array, "kept", kept, 1),
    )


def delta_options(
    query: NDArray[Any],
    log_gate: ArrayLike,
    beta: ArrayLike,
    scale: float | None = None,
    normalize: bool = False,
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
) -> _core.DeltaOptions:
    """In the core's form, which checks the shapes."""
    return delta_options_of(
        log_gates(log_gate),
        scale_of(scale, query),
        initial_state,
        key_mask,
        segment_ids,
        beta=float32_array("beta", beta, 3),
        normalize=truth("normalize", normalize),
    )


def delta_options_of(
    log_gate: NDArray[np.float32],
    scale: float,
    initial_state: ArrayLike | None,
    key_mask: ArrayLike | None,
    segment_ids: ArrayLike | None,
    **rule: Any,
) -> _core.DeltaOptions:
    """The same of checked gates; without a beta among `rule` states are not corrected."""
    return _core.DeltaOptions(
        log_gate=log_gate,
        scale=scale,
        initial_state=optional(float32_array, "initial_state", initial_state, 4),
        key_mask=optional(bool_array, "key_mask", key_mask, 2),
        segment_ids=optional(integer_array, "segment_ids", segment_ids, 2),
        **rule,
    )


def reference_gated_delta_rule(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    log_gate: ArrayLike,
    beta: ArrayLike,
    *,
    scale: float | None = None,
    normalize: bool = False,
    initial_state: ArrayLike | None = None,
    key_mask: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`gated_delta_rule` by its recurrence, in float64: ``(output, state)``."""
    q, k, v, logs, b = (np.asarray(a).astype(np.float64) for a in (query, key, value, log_gate, beta))
    batch, heads, length, dim = q.shape
    group = np.arange(heads) * k.shape[1] // heads
    k, v = k[:, group], v[:, group]
    if normalize:
        q, k = (x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + NORM_EPS) for x in (q, k))
    q = q * (max(dim, 1) ** -0.5 if scale is None else scale)
    segment = segment_runs(np.zeros((batch, length)) if segment_ids is None else np.asarray(segment_ids))
    shown = np.ones((batch, length), bool) if key_mask is None else np.asarray(key_mask)
    gates = reference_gates(logs, shown)
    gates = gates[..., None] if gates.ndim == 3 else gates
    state = np.zeros((batch, heads, dim, v.shape[3]))
    state = state if initial_state is None else np.asarray(initial_state).astype(np.float64)
    output = np.zeros((batch, heads, length, v.shape[3]))
    seen = np.full(batch, initial_state is not None)
    for i, t in np.ndindex(batch, length):
        if t > 0 and segment[i, t] != segment[i, t - 1]:
            state[i], seen[i] = 0.0, False
        if shown[i, t]:
            seen[i] = True
            decayed = gates[i, :, t, :, None] * state[i]
            error = v[i, :, t] - (k[i, :, t, None] @ decayed)[:, 0]
            state[i] = decayed + k[i, :, t, :, None] * (b[i, :, t, None] * error)[:, None]
        if seen[i]:
            output[i, :, t] = (q[i, :, t, None] @ state[i])[:, 0]
    return output, state
