"""How close the metrics of a kernel have to come to the reference's."""

from __future__ import annotations

import numpy as np
import rattention as ra
from rattention import MetricOptions

from tests.mechanisms import Mechanism, wide

DISTANCES = MetricOptions(local_radius=3, long_range_distance=11)

TOLERANCES = {
    "entropy": (1e-6, 3e-6),
    "local_concentration": (2e-6, 1e-7),
    "long_range": (2e-6, 1e-7),
    "retention": (2e-6, 2e-6),
    "context_mean": (2e-6, 1e-8),
    "context_std": (5e-6, 1e-7),
    "recent_distant_ratio": (1e-5, 1e-8),
    "max_weight": (2e-6, 0),
    "received": (2e-6, 1e-9),
}
"""Relative and absolute, on scores of a few units."""


def assert_close(got: ra.AttentionMetrics, expected: ra.AttentionMetrics, slack: float = 1) -> None:
    assert [name for name, _ in got] == [name for name, _ in expected]
    for name, (rtol, atol) in TOLERANCES.items():
        a, b = getattr(got, name), getattr(expected, name)
        if b is None:
            continue
        assert a.dtype == np.float32
        if name == "recent_distant_ratio":  # weights below float32's smallest are 0
            a, b = (np.clip(ratio, 1e-30, 1e30) for ratio in (a, b))
        np.testing.assert_allclose(a, b, rtol=slack * rtol, atol=slack * atol, err_msg=name)


def assert_largest(got: ra.AttentionMetrics, weights, slack: float = 1) -> None:
    """max_position holds the largest weight; scores equal to float32 may change places."""
    empty = weights.max(axis=-1) == 0
    assert (got.max_position[empty] == -1).all()
    at = np.maximum(got.max_position, 0)[..., None]
    found = np.take_along_axis(weights, at, axis=-1)[..., 0]
    np.testing.assert_allclose(found[~empty], weights.max(axis=-1)[~empty], rtol=slack * 2e-6)


def assert_metrics(mechanism: Mechanism, inputs, options, distances=DISTANCES) -> None:
    expected = mechanism.reference(**wide(inputs), **options, metrics=distances)
    weights, _, _ = mechanism.weights(**wide(mechanism.map_inputs(inputs)), **options)
    fused = mechanism.forward(**inputs, **options, metrics=distances, return_lse=True)
    alone = mechanism.metrics(**mechanism.map_inputs(inputs), **options, metrics=distances)
    np.testing.assert_allclose(fused.output, expected.output, rtol=0, atol=3e-6)
    np.testing.assert_allclose(fused.lse, expected.lse, rtol=1e-6, atol=1e-6)
    for got in (fused.metrics, alone):
        assert_close(got, expected.metrics)
        assert_largest(got, weights)
