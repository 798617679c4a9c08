"""Few rows that see more keys than a task takes: cut and joined, the same whatever threads and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.softmax import reference_attention

PART = 4096
LENGTHS = (PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 17, 3 * PART + 1)


def draw(length: int, rows: int = 1, heads: int = 2, kv_heads: int = 2, dim: int = 16) -> dict[str, Any]:
    rng = np.random.default_rng(length + rows)
    sizes = {"query": (heads, rows), "key": (kv_heads, length), "value": (kv_heads, length)}
    return {name: rng.standard_normal((1, *size, dim), np.float32) for name, size in sizes.items()}


def masks_of(kind: str, length: int, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "none": {},
        "causal": {"causal": True},
        "window": {"causal": True, "window": PART + 50},
        "padding": {"key_mask": rng.random((1, length)) < 0.5},
        "one part hidden": {"key_mask": (np.arange(length) >= min(PART, length - 1))[None]},
        "mask": {"attn_mask": rng.standard_normal((rows, length)).astype(np.float32)},
        "discount": {"causal": True, "log_discount": -0.001},
        "sinks": {"sinks": np.array([2.0, -1.0], np.float32)},
        "softcap": {"softcap": 5.0},
    }[kind]


KINDS = ("none", "causal", "window", "padding", "one part hidden", "mask", "discount", "sinks", "softcap")


def close(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    np.testing.assert_allclose(got, wanted, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_output_and_lse(length: int, rows: int, kind: str) -> None:
    inputs, masks = draw(length, rows), masks_of(kind, length, rows)
    result = ra.attention(**inputs, **masks, return_lse=True)
    wanted = reference_attention(**inputs, **masks)
    close(result.output, wanted.output)
    close(result.lse, wanted.lse)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_depends_on_threads_or_on_other_rows(kind: str, use_threads: Any) -> None:
    """Of a row whose window is no longer than a part, either, beside one that sees everything."""
    length = 3 * PART + 9
    inputs, masks = draw(length, 2), masks_of(kind, length, 2)
    use_threads(1)
    wanted = ra.attention(**inputs, **masks)
    for threads in (2, 5, 16):
        use_threads(threads)
        np.testing.assert_array_equal(ra.attention(**inputs, **masks), wanted)


def test_short_rows_are_not_cut() -> None:
    inputs = draw(2 * PART, 2)
    blocks = np.arange(2 * PART)[None] // (PART + 600)
    both = ra.attention(**inputs, causal=True, window=500, block_ids=blocks)
    alone = ra.attention(
        **inputs | {"query": inputs["query"][:, :, 1:]}, causal=True, window=500, block_ids=blocks
    )
    np.testing.assert_array_equal(both[:, :, 1:], alone)


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_grouped_heads(kv_heads: int, dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    drawn = draw(2 * PART + 5, heads=8, kv_heads=kv_heads)
    inputs = {name: array.astype(getattr(ml_dtypes, dtype, dtype)) for name, array in drawn.items()}
    got = ra.attention(**inputs).astype(np.float32)
    wanted = reference_attention(**{name: array.astype(np.float32) for name, array in inputs.items()}).output
    np.testing.assert_allclose(got, wanted, atol=2e-6 if dtype == "float32" else 2e-3)


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("name", ["key", "value"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, PART - 1, PART, 2 * PART + 3])
def test_poison(at: int, poison: float, name: str, hidden: bool) -> None:
    """Reaches every row that sees it, as the definition says, and no other."""
    inputs = draw(2 * PART + 20)
    shown = np.ones((1, 2 * PART + 20), bool)
    shown[:, at] = not hidden
    clean = ra.attention(**inputs, key_mask=shown)
    inputs[name][0, 1, at, 3] = poison
    got = ra.attention(**inputs, key_mask=shown)
    if hidden:
        np.testing.assert_array_equal(got, clean)
        return
    np.testing.assert_array_equal(got[0, 0], clean[0, 0])
    with np.errstate(all="ignore"):
        wanted = reference_attention(**inputs, key_mask=shown).output
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_allclose(got[~np.isnan(got)], wanted[~np.isnan(wanted)], atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("sinks", [None, 0.5])
def test_rows_without_weight(sinks: float | None) -> None:
    """All keys hidden: zeros; all scores -inf: undefined, or zero beside a sink."""
    inputs = draw(2 * PART + 1)
    hidden = ra.attention(**inputs, key_mask=np.zeros((1, 2 * PART + 1), bool), sinks=sinks)
    assert not hidden.any()
    mask = np.full((1, 2 * PART + 1), -np.inf, np.float32)
    got = ra.attention(**inputs, attn_mask=mask, sinks=sinks)
    wanted = reference_attention(**inputs, attn_mask=mask, sinks=sinks).output
    np.testing.assert_array_equal(got, wanted.astype(np.float32))


def test_gradients_after_such_a_pass() -> None:
    inputs = draw(2 * PART + 3, rows=2)
    grad = np.random.default_rng(3).standard_normal(inputs["query"].shape).astype(np.float32)
    result = ra.attention(**inputs, return_lse=True)
    got = ra.mechanisms.attention_backward(grad, **inputs, result=result)
    scale = inputs["query"].shape[3] ** -0.5
    q, k, v, g = (a.astype(np.float64) for a in (*inputs.values(), grad))
    weights = np.exp(q @ k.swapaxes(2, 3) * scale - result.exact_lse[..., None])
    products = g @ v.swapaxes(2, 3)
    scores = weights * (products - (weights * products).sum(-1, keepdims=True)) * scale
    close(got["value"], weights.swapaxes(2, 3) @ g)
    close(got["query"], scores @ k)
    close(got["key"], scores.swapaxes(2, 3) @ q)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("length", [PART, 2 * PART + 5])
def test_metrics_leave_the_output_alone(length: int, rows: int) -> None:
    inputs = draw(length, rows)
    alone = ra.attention(**inputs, return_lse=True)
    measured = ra.attention(**inputs, return_lse=True, metrics=ra.MetricOptions())
    np.testing.assert_array_equal(measured.output, alone.output)
    np.testing.assert_array_equal(measured.exact_lse, alone.exact_lse)
    assert measured.metrics is not None
    for name, values in ra.attention_metrics(inputs["query"], inputs["key"], metrics=ra.MetricOptions()):
        np.testing.assert_allclose(
            getattr(measured.metrics, name), values, rtol=1e-4, atol=1e-7, err_msg=name
        )
