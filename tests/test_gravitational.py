"""Gravitational attention, forward: against its float64 law under every mask, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.gravitational import reference_gravitational_attention

from tests.mechanisms import BFLOAT16
from tests.test_gradients import MASKS, draw

GRAVITY = ra.MECHANISMS["gravitational_multi_timescale"]


@pytest.mark.row("N1")
@pytest.mark.parametrize("discounted", [False, True])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_output_lse_and_metrics(masks: dict[str, Any], discounted: bool) -> None:
    inputs = draw(GRAVITY)
    if not discounted:
        del inputs["log_discount"]
    options = ra.MetricOptions(local_radius=2, long_range_distance=5)
    got = ra.gravitational_attention(**inputs, **masks, return_lse=True, metrics=options)
    law = reference_gravitational_attention(**inputs, **masks, metrics=options)
    np.testing.assert_allclose(got.output, law.output, atol=2e-6)
    np.testing.assert_allclose(got.lse, law.lse, atol=5e-6)
    for name, values in got.metrics:
        np.testing.assert_allclose(values, getattr(law.metrics, name), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.row("H7")
@pytest.mark.parametrize("length", [47, 49, 1023, 1025])
def test_lengths_around_blocks_and_tiles(length: int) -> None:
    inputs = draw(GRAVITY, rows=length, keys=length, heads=2, kv_heads=1)
    got = ra.gravitational_attention(**inputs, causal=True)
    law = reference_gravitational_attention(**inputs, causal=True)
    np.testing.assert_allclose(got, law.output, atol=5e-6)


@pytest.mark.row("N1")
def test_near_keys_lose_no_digits() -> None:
    """Large vectors a tiny way apart: |q|^2 + |k|^2 - 2 q.k would keep no digit of the distance."""
    inputs = draw(GRAVITY)
    inputs["query"] = inputs["query"] * np.float32(1e-2) + np.float32(100)
    inputs["key"] = inputs["key"] * np.float32(1e-2) + np.float32(100)
    inputs["eps"] = 1e-3
    got = ra.gravitational_attention(**inputs)
    law = reference_gravitational_attention(**inputs)
    spread = np.abs(law.output - law.output.mean()).max()
    assert np.abs(got - law.output).max() <= 1e-4 * spread


@pytest.mark.row("N2")
def test_bfloat16() -> None:
    inputs = {
        n: a.astype(BFLOAT16) if n not in ("gravity", "log_discount", "eps") else a
        for n, a in draw(GRAVITY).items()
    }
    got = ra.gravitational_attention(**inputs)
    assert got.dtype == BFLOAT16
    law = reference_gravitational_attention(**inputs).output
    assert np.abs(got.astype(np.float64) - law).max() <= 0.01 * np.abs(law).max()


@pytest.mark.row("S2")
def test_nan_in_a_query_stays_in_its_row() -> None:
    inputs = draw(GRAVITY)
    clean = ra.gravitational_attention(**inputs)
    inputs["query"][0, 1, 4, 0] = np.nan
    got = ra.gravitational_attention(**inputs)
    assert np.isnan(got[0, 1, 4]).all()
    got[0, 1, 4] = clean[0, 1, 4]
    np.testing.assert_array_equal(got, clean)


@pytest.mark.row("S6")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": 0.0}, ValueError, "eps must be > 0"),
        ({"eps": float("nan")}, ValueError, "eps must be finite"),
        ({"gravity": float("inf")}, ValueError, "gravity"),
        ({"gravity": np.ones(3, np.float32)}, ValueError, "gravity must be a number or one per head"),
        ({"query_mass": -np.ones((1, 4, 29), np.float32)}, ValueError, "query_mass must be >= 0"),
        (
            {"query_mass": np.ones((1, 4, 28), np.float32)},
            ValueError,
            r"query_mass must have shape \(1, 4, 29\)",
        ),
        ({"key_mass": np.ones((1, 3, 33), np.float32)}, ValueError, r"key_mass must have shape"),
        ({"key_mass": np.ones((1, 4, 33))}, TypeError, "key_mass has dtype float64"),
        ({"exponent": 0.0}, ValueError, "exponent must be > 0"),
        ({"exponent": float("nan")}, ValueError, "exponent must be finite"),
        ({"exponent": np.ones(3, np.float32)}, ValueError, "exponent must be a number or one per head"),
        ({"exponent": "2"}, TypeError, "exponent"),
        ({"log_discount": 0.1}, ValueError, "log_discount must be finite and <= 0"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ra.gravitational_attention(**(draw(GRAVITY) | change))
