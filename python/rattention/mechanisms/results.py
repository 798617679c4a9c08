"""What the public functions return besides the plain output; one class per family of mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from rattention._arguments import fields_in_brief
from rattention._metrics import ArrayT, AttentionMetrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _AttentionParts(NamedTuple, Generic[ArrayT]):
    output: ArrayT
    """``[batch, heads, query_length, value_dim]``, in the dtype of the inputs."""
    lse: ArrayT | None
    """Natural logarithm of the softmax's denominator, float32 ``[batch, heads, query_length]``; -inf for
    empty rows."""
    metrics: AttentionMetrics[ArrayT] | None
    """One number per query row for every metric asked for."""


class AttentionResult(_AttentionParts[ArrayT]):
    """What the softmax family returns when more than the output is asked for: output, lse and metrics.

    For an accurate backward pass, a result with an lse also keeps what rounding removed: the lse in float64,
    and the rounding error of a 16-bit output. Results constructed by hand lack both.
    """

    exact_lse: NDArray[np.float64] | None = None
    output_rest: NDArray[Any] | None = None

    @classmethod
    def of(
        cls,
        output: NDArray[Any],
        lse: NDArray[np.float64] | None,
        rest: NDArray[Any] | None,
        metrics: AttentionMetrics | None,
    ) -> AttentionResult:
        """From an lse in float64 and the rest of the output."""
        result = AttentionResult(output, None if lse is None else lse.astype("float32"), metrics)
        result.exact_lse, result.output_rest = lse, rest
        return result

    def __repr__(self) -> str:
        return fields_in_brief(self, self._fields)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class _TopKeysParts(NamedTuple, Generic[ArrayT]):
    weights: ArrayT
    """Float32 ``[batch, heads, rows, k]``; 0 where a row sees fewer keys."""
    positions: ArrayT
    """Of their keys, int64, of the same shape; -1 there."""


class TopKeys(_TopKeysParts[ArrayT]):
    """What `attention_top_keys` returns: the keys that rows weigh most, and their weights."""

    def __repr__(self) -> str:
        return fields_in_brief(self, self._fields)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class _LinearParts(NamedTuple, Generic[ArrayT]):
    output: ArrayT
    """``[batch, heads, length, value_dim]``, in the dtype of the inputs."""
    state: ArrayT
    """What the last row reads, float32 ``[batch, kv_heads, features, value_dim]``, with one per query head if
    the initial state has that; features are ``2 * head_dim``, or head_dim without a feature map."""


class LinearResult(_LinearParts[ArrayT]):
    """What the linear family returns with ``return_state=True``: output and state."""

    kept: NDArray[np.int32] | None = None
    """What the forward pass kept for the backward pass, where it was asked to: words that only the core
    reads."""

    @classmethod
    def of(cls, output: NDArray[Any], state: NDArray[Any], kept: NDArray[np.int32] | None) -> LinearResult:
        """With what was kept."""
        result = LinearResult(output, state)
        result.kept = kept
        return result

    def __repr__(self) -> str:
        return fields_in_brief(self, self._fields)

    __eq__ = object.__eq__
    __hash__ = object.__hash__
