"""rope_frequencies of rattention: a table in place of a base, with factors, in every form of it."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.rattention import rattention_backward, reference_rattention
from rattention.mechanisms.rattention_cache import rattention_step

from tests.extras import needs

RATES = np.array([[1.3, 0.4, 0.0, 0.01], [1.2, 1.2, 1.0, 0.7]])


def inputs(length=90):
    rng = np.random.default_rng(3)
    sizes = {"query": 4, "key": 2, "value": 2}
    return {n: rng.standard_normal((2, h, length, 8), dtype=np.float32) for n, h in sizes.items()}


@pytest.mark.parametrize("rates", [RATES, RATES[0]], ids=["with factors", "frequencies"])
@pytest.mark.parametrize("window", [0, 7, 70])
def test_the_definition(rates, window):
    got = ra.rattention(**inputs(), window=window, rope_frequencies=rates)
    expected, _ = reference_rattention(**inputs(), window=window, rope_frequencies=rates)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_base_is_a_table():
    table = 500.0 ** (-np.arange(4) / 4)
    got = ra.rattention(**inputs(), window=9, rope_frequencies=table)
    np.testing.assert_array_equal(got, ra.rattention(**inputs(), window=9, rope_theta=500.0))


def test_gradients_are_the_derivatives():
    given = {name: array.astype(np.float64) for name, array in inputs(23).items()}
    grad = np.random.default_rng(4).standard_normal((2, 4, 23, 8))
    options = {"window": 6, "rope_frequencies": RATES, "eps": 1e-3}
    got = rattention_backward(grad.astype(np.float32), **inputs(23), **options)
    for name in ("query", "key"):
        way = np.random.default_rng(5).standard_normal(given[name].shape)
        ends = [
            (reference_rattention(**given | {name: given[name] + step * way}, **options)[0] * grad).sum()
            for step in (1e-5, -1e-5)
        ]
        assert (got[name] * way).sum() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3)


@pytest.mark.parametrize("factors", [RATES[1], [0.0, 0.0, 1.0, -2.0], [1e-9, 3.0, 8.0, -0.0], [0.0] * 4])
def test_steps_and_bytes(factors):
    """Factors of 0 lose what a key was, in its scores alone."""
    rates = np.array([RATES[0], factors])
    whole = ra.rattention(**inputs(), window=11, rope_frequencies=rates)
    cache, rows = ra.RAttentionCache(2, 2, 8, 11, rope_frequencies=rates), []
    for begin, end in ((0, 40), (40, 41), (41, 60), *((i, i + 1) for i in range(60, 90))):
        part = {name: array[:, :, begin:end] for name, array in inputs().items()}
        rows.append(rattention_step(**part, cache=cache))
        cache = ra.RAttentionCache.from_bytes(cache.to_bytes())
    np.testing.assert_allclose(np.concatenate(rows, axis=2), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rope_frequencies": RATES, "rope_theta": 1e4}, ValueError, "give one of them"),
        (
            {"rope_frequencies": RATES[:, :3]},
            ValueError,
            r"rope_frequencies must have shape \(4,\) or \(2, 4\)",
        ),
        ({"rope_frequencies": RATES * np.inf}, ValueError, "rope_frequencies must be finite"),
        ({"rope_frequencies": ["a"] * 4}, TypeError, "rope_frequencies must be real numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        ra.rattention(**inputs(), window=5, **options)
    with pytest.raises(error, match=message):
        ra.RAttentionCache(1, 1, 8, 5, **options)


def test_tensors_with_gradients_and_in_plain_pytorch():
    needs("torch")
    import rattention.torch as rt
    import torch
    from rattention.torch.linear_composition import rattention as composed

    tensors = {n: torch.from_numpy(a).requires_grad_() for n, a in inputs().items()}
    got = rt.rattention(**tensors, window=9, rope_frequencies=torch.from_numpy(RATES))
    none = dict.fromkeys(("rope_theta", "scale", "local_norm_weight", "linear_norm_weight", "key_mask"))
    none |= {
        "gate": None,
        "segment_ids": None,
        "initial_state": None,
        "feature_map": "softmax",
        "return_state": False,
    }
    (expected,) = composed(**tensors, window=9, rope_frequencies=torch.from_numpy(RATES), eps=1e-8, **none)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(got)
    gradients = [torch.autograd.grad((x * weight).sum(), [*tensors.values()]) for x in (got, expected)]
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3)
