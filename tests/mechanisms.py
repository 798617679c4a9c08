"""The table of mechanisms the tests iterate over, and the float32 error that every one of them is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.masks import Masks, query_positions, reference_visible
from rattention.mechanisms.softmax import reference_attention, reference_weights

Arrays = dict[str, NDArray[Any]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16, "float16": np.dtype(np.float16)}


@dataclass(frozen=True)
class Sizes:
    """Sizes of one problem; what is None takes its partner's value."""

    batch: int = 1
    heads: int = 2
    kv_heads: int | None = None
    rows: int = 33
    keys: int | None = None
    dim: int = 16
    value_dim: int | None = None

    def filled(self) -> Sizes:
        return replace(
            self,
            kv_heads=self.heads if self.kv_heads is None else self.kv_heads,
            keys=self.rows if self.keys is None else self.keys,
            value_dim=self.dim if self.value_dim is None else self.value_dim,
        )


@dataclass(frozen=True)
class Mechanism:
    """One row of the table."""

    name: str
    draw: Callable[..., Arrays]
    """``draw(sizes, seed=0, dtype="float32")``: inputs by argument name."""
    forward: Callable[..., Any]
    reference: Callable[..., Any]
    """The law: float64, by the definition."""
    weights: Callable[..., Any]
    """The law's map: ``(weights, visible, lse)``."""
    naive: Callable[..., NDArray[Any]]
    """The same formula in plain NumPy at the precision of the inputs: what the error is measured against.
    Takes ``base``, 2 or e, besides the options."""
    metrics: Callable[..., ra.AttentionMetrics]
    rows: Callable[..., NDArray[np.float32]]

    def map_inputs(self, inputs: Arrays) -> Arrays:
        """What the map depends on: all inputs but the values."""
        return {name: array for name, array in inputs.items() if name != "value"}

    def exact(self, inputs: Arrays, **options: Any) -> NDArray[np.float64]:
        """`reference` for finite inputs as one matrix product: long sequences cannot wait for its loop."""
        wide = {name: array.astype(np.float64) for name, array in inputs.items()}
        weights, _, _ = self.weights(**self.map_inputs(wide), **options)
        return weights @ repeat_heads(wide["value"], weights.shape[1])


def draw_softmax(sizes: Sizes, seed: int = 0, dtype: str = "float32") -> Arrays:
    s = sizes.filled()
    rng = np.random.default_rng(seed)
    shapes = {
        "query": (s.batch, s.heads, s.rows, s.dim),
        "key": (s.batch, s.kv_heads, s.keys, s.dim),
        "value": (s.batch, s.kv_heads, s.keys, s.value_dim),
    }
    return {
        name: rng.standard_normal(shape, np.float32).astype(DTYPES[dtype]) for name, shape in shapes.items()
    }


def repeat_heads(array: NDArray[Any], heads: int) -> NDArray[Any]:
    """Key or value heads as every query head sees them."""
    return np.repeat(array, heads // array.shape[1], axis=1)


def naive_softmax(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    *,
    base: float = np.e,
    scale: float | None = None,
    log_discount: Any = None,
    **masks: Any,
) -> NDArray[Any]:
    """Softmax attention whose every step is rounded to the inputs' dtype; products are summed in float32.

    With base 2 the scale is folded into the queries, as fast kernels do it, and weights are powers of two.
    """

    def rounded(array: NDArray[Any]) -> NDArray[np.float32]:
        return array.astype(query.dtype).astype(np.float32)

    batch, heads, rows, dim = query.shape
    q = query.astype(np.float32)
    k, v = (repeat_heads(a, heads).astype(np.float32) for a in (key, value))
    unit = np.float32(1 / np.log(base))
    factor = np.float32(dim**-0.5 if scale is None else scale) * unit
    visible, bias = reference_visible(Masks(**masks), batch, heads, rows, key.shape[2])
    with np.errstate(all="ignore"):
        folded = base == 2 and query.dtype == np.float32
        dots = (q * factor) @ k.swapaxes(2, 3) if folded else rounded(q @ k.swapaxes(2, 3)) * factor
        scores = rounded(dots) + bias.astype(np.float32) * unit
        if log_discount is not None:
            positions = query_positions(Masks(**masks), rows, key.shape[2])
            distance = np.abs(positions[:, None] - np.arange(key.shape[2])).astype(np.float32)
            scores = (
                scores + np.broadcast_to(np.float32(log_discount), heads)[:, None, None] * distance * unit
            )
        scores = np.where(visible, rounded(scores), np.float32(-np.inf))
        top = scores.max(axis=-1, keepdims=True)
        power = np.exp2 if base == 2 else np.exp
        p = rounded(power(scores - np.where(np.isneginf(top), np.float32(0), top)))
        total = p.sum(axis=-1, keepdims=True)
        p = rounded(p / np.where(total == 0, np.float32(1), total))
        return (p @ v).astype(query.dtype)


MECHANISMS = [
    Mechanism(
        name="softmax",
        draw=draw_softmax,
        forward=ra.attention,
        reference=reference_attention,
        weights=reference_weights,
        naive=naive_softmax,
        metrics=ra.attention_metrics,
        rows=ra.attention_rows,
    )
]


def largest_error(got: NDArray[Any], exact: NDArray[np.float64]) -> float:
    return float(np.abs(got.astype(np.float64) - exact).max(initial=0.0))


def allowed_error(mechanism: Mechanism, inputs: Arrays, exact: NDArray[np.float64], **options: Any) -> float:
    """Twice the error of the naive evaluation in the same precision, at least the last rounding.

    The formula has two usual forms, and its sums have no order: the largest of their errors
    counts, as any of them may be lucky.
    """
    flipped = {n: a[..., ::-1] if n in ("query", "key") else a for n, a in inputs.items()}
    naive = max(
        largest_error(mechanism.naive(**evaluated, **options, base=base), exact)
        for evaluated in (inputs, flipped)
        for base in (2, np.e)
    )
    value = inputs["value"]
    largest_value = float(np.abs(value.astype(np.float64)).max(initial=0.0))
    return max(2 * naive, last_rounding(value) * largest_value)


def last_rounding(value: NDArray[Any]) -> float:
    """Relative to the largest value. A BLAS sums products of few columns in lanes, better than naively."""
    if value.dtype != np.float32:
        return float(ml_dtypes.finfo(value.dtype).eps) / 2
    return 2e-7 if min(value.shape[2:]) >= 16 else 5e-7


def assert_accurate(mechanism: Mechanism, inputs: Arrays, **options: Any) -> NDArray[Any]:
    """The forward result, after holding it to the bound."""
    got = mechanism.forward(**inputs, **options)
    exact = mechanism.exact(inputs, **options)
    assert got.shape == exact.shape
    assert got.dtype == inputs["value"].dtype
    error, allowed = largest_error(got, exact), allowed_error(mechanism, inputs, exact, **options)
    assert error <= allowed, f"largest error {error:.3g}, allowed {allowed:.3g}"  # a NaN fails as well
    return got
