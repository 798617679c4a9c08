"""The table of mechanisms the tests iterate over, and the float32 error that every one of them is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.gravitational import (
    gravitational_distances,
    gravitational_map,
    gravitational_metrics,
    gravitational_rows,
    gravitational_segments,
    gravitational_top_keys,
    reference_gravitational_attention,
    reference_gravitational_weights,
)
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
    """Of the map alone, without values."""
    rows: Callable[..., NDArray[np.float32]]
    """A few rows of the map."""
    pooled: Callable[..., NDArray[np.float32]]
    """The map, mean-pooled."""
    segments: Callable[..., NDArray[np.float32]]
    """The mass between segments of it."""
    top_keys: Callable[..., ra.TopKeys]
    """The largest weights of each row."""
    distances: Callable[..., NDArray[np.float32]]
    """The mass by distance."""
    sink: float = -np.inf
    """The score of a key without a value that every row sees."""

    @property
    def has_masses(self) -> bool:
        return self.draw is draw_gravitational

    def map_inputs(self, inputs: Arrays) -> Arrays:
        """What the map depends on: all inputs but the values."""
        return {name: array for name, array in inputs.items() if name != "value"}

    def map(self, inputs: Arrays, **options: Any) -> NDArray[Any]:
        """The map as the kernel makes it: means of unit vectors."""
        key = inputs["key"]
        value = np.broadcast_to(np.eye(key.shape[2], dtype=key.dtype), (*key.shape[:3], key.shape[2]))
        return self.forward(**inputs | {"value": value}, **options)

    def complete(self, arrays: Arrays) -> Arrays:
        """These queries, keys and values, and where there are masses 1 for each."""
        if not self.has_masses:
            return arrays
        one = np.ones((), arrays["query"].dtype)
        shapes = {f"{name}_mass": arrays[name].shape[:3] for name in ("query", "key")}
        return arrays | {name: np.broadcast_to(one, shape) for name, shape in shapes.items()}

    def exact(self, inputs: Arrays, **options: Any) -> NDArray[np.float64]:
        """`reference` for finite inputs as one matrix product: long sequences cannot wait for its loop."""
        exact = wide(inputs)
        weights, _, _ = self.weights(**self.map_inputs(exact), **options)
        return weights @ repeat_heads(exact["value"], weights.shape[1])


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


def draw_gravitational(sizes: Sizes, seed: int = 0, dtype: str = "float32") -> Arrays:
    """Squared distances are about 2 head_dim; the products of masses follow, so that scores are about 1."""
    s = sizes.filled()
    rng = np.random.default_rng(seed + 1)
    shapes = {"query_mass": (s.batch, s.heads, s.rows), "key_mass": (s.batch, s.kv_heads, s.keys)}
    masses = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    unit = np.float32(2 * s.dim**0.5)
    return draw_softmax(sizes, seed, dtype) | {n: (m * unit).astype(DTYPES[dtype]) for n, m in masses.items()}


def repeat_heads(array: NDArray[Any], heads: int) -> NDArray[Any]:
    """Key or value heads as every query head sees them."""
    return np.repeat(array, heads // array.shape[1], axis=1)


def round_to(dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Rounding as a step of the naive evaluation does it: to the inputs' dtype, kept in float32."""
    return (lambda a: a) if dtype == np.float32 else (lambda a: a.astype(dtype).astype(np.float32))


def naive_softmax(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    *,
    base: float = np.e,
    scale: float | None = None,
    softcap: float | None = None,
    **options: Any,
) -> NDArray[Any]:
    """Softmax attention whose every step is rounded to the inputs' dtype; products are summed in float32.

    With base 2 the scale is folded into the queries, as fast kernels do it, and weights are powers of two.
    """
    q, k = query.astype(np.float32), repeat_heads(key, query.shape[1]).astype(np.float32)
    factor = np.float32(query.shape[3] ** -0.5 if scale is None else scale) * np.float32(1 / np.log(base))
    rounded = round_to(query.dtype)
    folded = base == 2 and query.dtype == np.float32
    with np.errstate(all="ignore"):
        scores = (q * factor) @ k.swapaxes(2, 3) if folded else rounded(q @ k.swapaxes(2, 3)) * factor
    if softcap is not None:
        bound = np.float32(softcap / np.log(base))
        scores = np.tanh(rounded(scores) / bound) * bound
    return naive_mean(rounded(scores), value, base, **options)


def naive_gravitational(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    query_mass: NDArray[Any],
    key_mass: NDArray[Any],
    *,
    base: float = np.e,
    gravity: float = 1.0,
    eps: float = 1e-3,
    exponent: float = 2.0,
    **options: Any,
) -> NDArray[Any]:
    """Gravitational attention with the same roundings; squares of differences are summed in their order.

    With base 2 the masses are multiplied to the inverse of the distance one by one.
    """
    heads = query.shape[1]
    q, mq = (a.astype(np.float32) for a in (query, query_mass))
    k, mk = (repeat_heads(a, heads).astype(np.float32) for a in (key, key_mass))
    rounded, unit = round_to(query.dtype), np.float32(1 / np.log(base))
    distance = np.zeros((*q.shape[:3], k.shape[2]), np.float32)
    with np.errstate(all="ignore"):
        for d in range(q.shape[3]):
            difference = rounded(q[..., :, None, d] - k[..., None, :, d])
            difference *= difference
            distance += difference
        if exponent != 2:
            distance = (
                np.sqrt(distance) if exponent == 1 else np.exp2(np.log2(distance) * np.float32(exponent / 2))
            )
        distance = rounded(distance) + np.float32(eps)
        if base == 2:
            scores = rounded(1 / distance) * mk[:, :, None] * (mq * (np.float32(gravity) * unit))[..., None]
        else:
            scores = rounded(rounded(mq[..., None] * mk[:, :, None]) / distance) * np.float32(gravity) * unit
    return naive_mean(rounded(scores), value, base, **options)


def naive_mean(
    scores: NDArray[np.float32],
    value: NDArray[Any],
    base: float,
    *,
    log_discount: Any = None,
    relative_bias: Any = None,
    sinks: Any = None,
    **masks: Any,
) -> NDArray[Any]:
    """The values weighted by powers of `base`, step by step in the dtype of the values."""
    batch, heads, rows, keys = scores.shape
    rounded, unit = round_to(value.dtype), np.float32(1 / np.log(base))
    visible, bias = reference_visible(Masks(**masks), batch, heads, rows, keys)
    with np.errstate(all="ignore"):
        scores = scores + bias.astype(np.float32) * unit
        if log_discount is not None:
            distance = np.abs(query_positions(Masks(**masks), rows, keys)[:, None] - np.arange(keys))
            discount = np.asarray(log_discount, np.float32)
            discount = discount if discount.ndim == 3 else np.broadcast_to(discount, heads)[:, None]
            scores = scores + discount[..., None] * distance.astype(np.float32) * unit
        if relative_bias is not None:
            reach = relative_bias.shape[1] // 2
            distance = np.arange(keys) - query_positions(Masks(**masks), rows, keys)[:, None]
            scores = scores + relative_bias[:, distance.clip(-reach, reach) + reach] * unit
        scores = np.where(visible, rounded(scores), np.float32(-np.inf))
        sink = np.asarray(-np.inf if sinks is None else sinks, np.float32).reshape(-1, 1, 1) * unit
        top = np.maximum(scores.max(axis=-1, keepdims=True), sink)
        power = np.exp2 if base == 2 else np.exp
        p = rounded(power(scores - np.where(np.isneginf(top), np.float32(0), top)))
        shift = np.where(np.isneginf(top), np.float32(0), top)
        total = p.sum(axis=-1, keepdims=True) + rounded(power(sink - shift))
        p = rounded(p / np.where(total == 0, np.float32(1), total))
        return (p @ repeat_heads(value, heads).astype(np.float32)).astype(value.dtype)


OF_MAP = ("metrics", "rows", "pooled", "segments", "top_keys", "distances")
FUNCTIONS = ("forward", "reference", "weights", "naive", *OF_MAP)
"""Of a mechanism, all with its options."""


def _variant(mechanism: Mechanism, name: str, **options: Any) -> Mechanism:
    """The same with options of its own, which a call can still overrule."""
    bound = {f: partial(getattr(mechanism, f), **options) for f in FUNCTIONS}
    return replace(mechanism, name=name, **bound)


def with_bias(mechanism: Mechanism, name: str, reach: int) -> Mechanism:
    """The same with a random bias for every distance."""

    def biased(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            heads = (*getattr(arguments["query"], "shape", ()), 1, 1)[1]  # what is refused may have none
            table = np.random.default_rng(heads).standard_normal((heads, 2 * reach + 1), np.float32)
            return function(**{"relative_bias": table, **arguments})

        return call

    return replace(mechanism, name=name, **{f: biased(getattr(mechanism, f)) for f in FUNCTIONS})


SOFTMAX = Mechanism(
    name="softmax",
    draw=draw_softmax,
    forward=ra.attention,
    reference=reference_attention,
    weights=reference_weights,
    naive=naive_softmax,
    metrics=ra.attention_metrics,
    rows=ra.attention_rows,
    pooled=ra.attention_map,
    segments=ra.attention_segments,
    top_keys=ra.attention_top_keys,
    distances=ra.attention_distances,
)
GRAVITATIONAL = _variant(
    Mechanism(
        name="",
        draw=draw_gravitational,
        forward=ra.gravitational_attention,
        reference=reference_gravitational_attention,
        weights=reference_gravitational_weights,
        naive=naive_gravitational,
        metrics=gravitational_metrics,
        rows=gravitational_rows,
        pooled=gravitational_map,
        segments=gravitational_segments,
        top_keys=gravitational_top_keys,
        distances=gravitational_distances,
    ),
    "gravitational",
    eps=4.0,
)
SCORE_RULES = [SOFTMAX, GRAVITATIONAL]
"""One mechanism for each rule of the score loop: for tests that a discount, or none, is the same to."""
MECHANISMS = [
    *SCORE_RULES,
    _variant(SOFTMAX, "multi_timescale", log_discount=-0.01),
    _variant(GRAVITATIONAL, "gravitational_multi_timescale", log_discount=-0.01),
    _variant(GRAVITATIONAL, "gravitational, Euclidean", exponent=1.0),
    _variant(GRAVITATIONAL, "gravitational, power 2.6", exponent=2.6),
    _variant(SOFTMAX, "soft-capped", softcap=1.5),
    replace(_variant(SOFTMAX, "beside a sink", sinks=1.0), sink=1.0),
    with_bias(SOFTMAX, "biased by distance", 12),
]

by_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda m: m.name)
with_whole_weights = pytest.mark.parametrize(
    "mechanism", [m for m in MECHANISMS if m.sink == -np.inf], ids=lambda m: m.name
)
"""Those of a row that sees something sum to one."""
with_unbounded_scores = pytest.mark.parametrize(
    "mechanism", [m for m in MECHANISMS if m.name != "soft-capped"], ids=lambda m: m.name
)
by_rule = pytest.mark.parametrize("mechanism", SCORE_RULES, ids=lambda m: m.name)
with_dot_products = pytest.mark.parametrize("mechanism", [SOFTMAX], ids=lambda m: m.name)
"""What has a scale."""


def wide(inputs: Arrays) -> Arrays:
    """The inputs in float64."""
    return {name: np.asarray(array).astype(np.float64) for name, array in inputs.items()}


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
