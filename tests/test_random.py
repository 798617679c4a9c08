"""Random sizes, masks and layouts against the reference: what no list of cases thought of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rattention import MetricOptions
from rattention.mechanisms.pooled_map import reference_map

from tests.masks import CHOICES
from tests.mechanisms import Mechanism, Sizes, by_rule, last_rounding, wide
from tests.metric_checks import assert_close, assert_largest

LENGTHS = st.one_of(
    st.integers(1, 12), st.integers(1, 100), st.sampled_from([47, 48, 49, 511, 512, 513, 530])
)


@st.composite
def sizes(draw) -> Sizes:
    kv_heads = draw(st.integers(1, 3))
    rows, keys = draw(LENGTHS), draw(LENGTHS)
    small = rows * keys <= 10_000
    return Sizes(
        batch=draw(st.integers(1, 3)) if small else 1,
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        rows=rows,
        keys=keys,
        dim=draw(st.integers(1, 40)),
        value_dim=draw(st.integers(1, 40)),
    )


@st.composite
def options(draw, s: Sizes, mechanism: Mechanism) -> dict:
    chosen = {line: draw(st.sampled_from(names)) for line, names in CHOICES.items()}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    reach = st.one_of(st.none(), st.integers(0, 20), st.integers(0, 1200))
    factor = "gravity" if mechanism.has_masses else "scale"
    result: dict = {"causal": chosen["future"] == "causal", factor: draw(st.sampled_from([1.0, 0.3, -1.0]))}
    if chosen["reach"] == "window":
        result["window"] = draw(reach)
    elif chosen["reach"] == "pair":
        result["window"] = (draw(reach), draw(reach))
    if chosen["batch"]:
        result["key_mask"] = rng.random((s.batch, s.keys)) < draw(st.sampled_from([0.0, 0.5, 0.95]))
    if chosen["dense"]:
        shape = [n if draw(st.booleans()) else 1 for n in (s.batch, s.heads, s.rows, s.keys)]
        mask = rng.standard_normal(shape[draw(st.integers(0, 3)) :], np.float32)
        visible = mask > draw(st.sampled_from([-9.0, -1.0, 0.5]))
        result["attn_mask"] = (
            visible if chosen["dense"] == "bool" else np.where(visible, mask, -np.float32(np.inf))
        )
    if chosen["decay"]:
        result["log_discount"] = -rng.random(s.heads, np.float32) * min(1, 30 / s.keys)
    if chosen["parts"] and s.rows <= s.keys:  # every row needs the position of a key
        result["segment_ids"] = rng.integers(0, draw(st.integers(1, 5)), (s.batch, s.keys))
        if chosen["place"]:
            result["query_offset"] = draw(st.integers(0, s.keys - s.rows))
    elif chosen["place"]:
        result["query_offset"] = draw(st.integers(-600, 600))
    return result


@st.composite
def parts(draw, s: Sizes) -> dict:
    """Of the map, and how to pool it."""
    part: dict = {"shape": draw(st.tuples(st.integers(1, 60), st.integers(1, 600)))}
    for name, length in (("rows", s.rows), ("keys", s.keys)):
        start = draw(st.integers(0, length - 1))
        part[name] = draw(st.one_of(st.none(), st.tuples(st.just(start), st.integers(start + 1, length))))
    return part


def strided(array, how: int):
    """The same numbers: as they are, backwards in memory, or with another axis innermost."""
    if how == 0:
        return array
    if array.ndim == 3:
        return strided(array[..., None], how)[..., 0]
    if how == 1:
        return np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1]
    return np.ascontiguousarray(array.swapaxes(1, 3)).swapaxes(1, 3)


@by_rule
@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_anything(mechanism, data):
    check_one(mechanism, data)


@pytest.mark.slow
@by_rule
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_anything_more(mechanism, data):
    check_one(mechanism, data)


def check_one(mechanism, data) -> None:
    s = data.draw(sizes())
    chosen = data.draw(options(s, mechanism))
    dtype = data.draw(st.sampled_from(["float32", "float32", "bfloat16", "float16"]))
    distances = MetricOptions(*data.draw(st.tuples(st.integers(0, 40), st.integers(0, 60))))
    inputs = mechanism.draw(s, seed=data.draw(st.integers(0, 1000)), dtype=dtype)
    inputs = {name: strided(array, data.draw(st.integers(0, 2))) for name, array in inputs.items()}
    result = mechanism.forward(**inputs, **chosen, return_lse=True, metrics=distances)
    expected = mechanism.reference(**wide(inputs), **chosen, metrics=distances)
    weights, visible, _ = mechanism.weights(**wide(mechanism.map_inputs(inputs)), **chosen)

    spread = 1 + np.abs(expected.lse[np.isfinite(expected.lse)]).max(initial=0)
    rounding = max(1e-6 * spread, 2 * last_rounding(inputs["value"]))
    largest = np.abs(wide(inputs)["value"]).max(initial=0)
    np.testing.assert_allclose(result.output.astype(float), expected.output, rtol=0, atol=rounding * largest)
    # Scores and biases that cancel leave the rounding of the larger of them in an lse near 0.
    np.testing.assert_allclose(result.lse, expected.lse, rtol=2e-6, atol=2e-6 + 2e-7 * spread)
    assert_close(result.metrics, expected.metrics, slack=2 * spread)
    assert_largest(result.metrics, weights, slack=2 * spread)
    rows = data.draw(st.lists(st.integers(-s.rows, s.rows - 1), max_size=5))
    got = mechanism.rows(**mechanism.map_inputs(inputs), rows=rows, **chosen)
    np.testing.assert_allclose(got, weights[:, :, rows], rtol=3e-6 * spread, atol=1e-9)
    assert not got[~visible[:, :, rows]].any()
    part = data.draw(parts(s))
    pooled = mechanism.pooled(**mechanism.map_inputs(inputs), **part, **chosen)
    np.testing.assert_allclose(pooled, reference_map(weights, **part), rtol=3e-6 * spread, atol=1e-9)
