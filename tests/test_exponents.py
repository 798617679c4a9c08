"""Powers of the distance in gravitational attention: against the float64 law, and where distances are 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.gravitational import (
    gravitational_attention_backward,
    gravitational_map,
    gravitational_rows,
    reference_gravitational_attention,
    reference_gravitational_weights,
)

from tests.mechanisms import wide
from tests.test_gradients import draw
from tests.variants import TABLE

GRAVITY = ra.MECHANISMS["gravitational"]
(WITH_EXPONENTS,) = (m for m in TABLE if m.name == "gravitational with exponent")
EXPONENTS = [0.01, 0.5, 1.0, 1.7, 2.0, 3.0, 8.0]
by_exponent = pytest.mark.parametrize("exponent", EXPONENTS)


def gradients(inputs: dict[str, Any], **masks: Any) -> dict[str, Any]:
    grad = np.random.default_rng(1).standard_normal((1, 4, inputs["query"].shape[2], 6)).astype(np.float32)
    result = ra.gravitational_attention(**inputs, **masks, return_lse=True)
    return gravitational_attention_backward(grad, **inputs, **masks, result=result)


@pytest.mark.row("N1")
@by_exponent
@pytest.mark.parametrize("apart", [1e-6, 1e-2, 1.0, 1e4])
def test_output_over_magnitudes(exponent: float, apart: float) -> None:
    """From points that nearly coincide to distances whose powers overflow."""
    inputs = draw(GRAVITY) | {"exponent": exponent}
    for name in ("query", "key"):
        inputs[name] = inputs[name] * np.float32(apart)
    got = ra.gravitational_attention(**inputs, causal=True, return_lse=True)
    law = reference_gravitational_attention(**inputs, causal=True)
    np.testing.assert_allclose(got.output, law.output, atol=5e-6)
    np.testing.assert_allclose(got.lse, law.lse, atol=1e-5)


@pytest.mark.row("H7")
@pytest.mark.parametrize("length", [1, 15, 47, 1025])
def test_lengths_rows_and_map(length: int) -> None:
    inputs = draw(WITH_EXPONENTS, rows=length, keys=length)
    law = reference_gravitational_attention(**inputs, causal=True)
    np.testing.assert_allclose(ra.gravitational_attention(**inputs, causal=True), law.output, atol=5e-6)
    del inputs["value"]
    weights, _, _ = reference_gravitational_weights(**wide_arrays(inputs), causal=True)
    rows = gravitational_rows(**inputs, rows=[-1, 0], causal=True)
    np.testing.assert_allclose(rows, weights[:, :, [-1, 0]], atol=2e-6)
    pooled = gravitational_map(**inputs, shape=(1, 1), causal=True)
    np.testing.assert_allclose(pooled[..., 0, 0], weights.mean((2, 3)), rtol=1e-5)


def wide_arrays(inputs: dict[str, Any]) -> dict[str, Any]:
    arrays = {n: a for n, a in inputs.items() if isinstance(a, np.ndarray)}
    return inputs | wide(arrays)


def test_the_default_is_two_bit_for_bit() -> None:
    """Also where 2 is given, alone or beside others."""
    inputs = draw(GRAVITY)
    expected = ra.gravitational_attention(**inputs)
    np.testing.assert_array_equal(ra.gravitational_attention(**inputs, exponent=2.0), expected)
    exponents = np.array([2, 1, 2, 3], np.float32)
    mixed = ra.gravitational_attention(**inputs, exponent=exponents)
    np.testing.assert_array_equal(mixed[:, ::2], expected[:, ::2])
    assert set(gradients(inputs | {"exponent": 2})) - set(gradients(inputs)) == {"exponent"}


@pytest.mark.row("N3")
@by_exponent
def test_gradients_of_equal_exponents(exponent: float) -> None:
    """All heads alike, against differences along one direction of all vectors and exponents at once."""
    inputs = draw(GRAVITY) | {"exponent": np.full(4, exponent, np.float32)}
    got = gradients(inputs, causal=True)
    rng = np.random.default_rng(5)
    names = ("query", "key", "exponent")
    along = {n: rng.standard_normal(inputs[n].shape) * min(exponent, 1.0) for n in names}
    grad = np.random.default_rng(1).standard_normal((1, 4, 29, 6)).astype(np.float32)

    def value(step: float) -> float:
        moved = wide_arrays(inputs)
        moved |= {n: moved[n] + step * direction for n, direction in along.items()}
        return float((reference_gravitational_attention(**moved, causal=True).output * grad).sum())

    expected = (value(1e-6) - value(-1e-6)) / 2e-6
    products = [got[n] * direction for n, direction in along.items()]
    scale = sum(float(np.abs(p).sum()) for p in products)
    assert abs(sum(float(p.sum()) for p in products) - expected) <= 2e-5 * scale


@pytest.mark.row("S2")
@by_exponent
def test_distance_zero_has_no_gradient(exponent: float) -> None:
    """Keys that equal queries: finite, and what remains is the gradient of all other pairs."""
    inputs = draw(GRAVITY, rows=33) | {"exponent": np.full(4, exponent, np.float32)}
    inputs["query"] = np.repeat(inputs["key"], 2, axis=1)
    got = gradients(inputs)
    assert all(np.isfinite(array).all() for array in got.values())
    law = reference_gravitational_attention(**inputs)
    np.testing.assert_allclose(ra.gravitational_attention(**inputs), law.output, atol=5e-6)
    same = gradients(inputs, attn_mask=np.eye(33, dtype=bool))
    assert not any(same[name].any() for name in ("query", "key", "exponent"))


@pytest.mark.row("S4")
@by_exponent
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_special_values(exponent: float, poison: float) -> None:
    """NaN in exactly the rows that see it; a key at infinity weighs as one without mass."""
    inputs = draw(GRAVITY) | {"exponent": exponent}
    inputs["key"][0, 1, 20] = poison
    got = ra.gravitational_attention(**inputs, causal=True)
    sees = np.arange(29) + 4 >= 20
    assert np.isfinite(got[:, :2]).all()
    assert np.isfinite(got[:, 2:, ~sees]).all()
    if np.isnan(poison):
        assert np.isnan(got[:, 2:, sees]).all()
        return
    weightless = inputs | {
        "key": np.nan_to_num(inputs["key"], posinf=0.0),
        "key_mass": inputs["key_mass"].copy(),
    }
    weightless["key_mass"][:, 2:, 20] = 0
    np.testing.assert_array_equal(got, ra.gravitational_attention(**weightless, causal=True))


def test_cosines_are_distances_of_scaled_vectors() -> None:
    """What the documentation says of them: softmax of m_i m_j / (1 - cos + eps), written out."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((1, 2, n, 8)) for n in (5, 9, 9))
    mass, other = rng.random((1, 2, 5)), rng.random((1, 2, 9))
    unit_query, unit_key = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
    cosine = unit_query @ unit_key.swapaxes(2, 3)
    scores = mass[..., None] * other[:, :, None] / (1 - cosine + 0.1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ value
    short = [np.float32(np.sqrt(0.5) * x) for x in (unit_query, unit_key)]
    got = ra.gravitational_attention(*short, *map(np.float32, (value, mass, other)), eps=0.1)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
