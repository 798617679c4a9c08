"""Rows N: errors against float64, at most twice those of the naive evaluation; equal bits where due."""

from __future__ import annotations

import time

import ml_dtypes
import numpy as np
import pytest
import rattention as ra

from tests.mechanisms import (
    DTYPES,
    MECHANISMS,
    SOFTMAX,
    Sizes,
    allowed_error,
    assert_accurate,
    by_mechanism,
    by_rule,
    largest_error,
    wide,
    with_unbounded_scores,
)

FA_DIMS = (16, 32, 40, 64, 80, 128)
FA_LENGTHS = (97, 128, 200, 256, 257, 384, 512, 768, 1024, 1025, 2048)
VARIANTS = {
    "full": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": 70},
    "two-sided": {"window": (130, 41), "log_discount": -0.01},
}


def sizes_of_all(lengths):
    """Of one mechanism every pair of sizes, of the others every size once; NumPy is slow with distances."""
    cases = [(SOFTMAX, dim, length) for dim in FA_DIMS for length in lengths]
    for mechanism in [m for m in MECHANISMS if m is not SOFTMAX]:
        few = [n for n in lengths if n <= 512 or not mechanism.has_masses]
        cases += [
            (mechanism, FA_DIMS[i % len(FA_DIMS)], few[i % len(few)])
            for i in range(max(len(few), len(FA_DIMS)))
        ]
    return pytest.mark.parametrize(
        ("mechanism", "dim", "length"), cases, ids=lambda v: str(v) if isinstance(v, int) else v.name
    )


variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


@pytest.mark.row("N1")
@variants
@sizes_of_all(FA_LENGTHS)
def test_float32(mechanism, dim, length, options):
    heads = min(16, max(1, 2**19 // length**2))  # the largest of few errors would depend on luck
    inputs = mechanism.draw(Sizes(heads=heads, rows=length, dim=dim), seed=length)
    assert_accurate(mechanism, inputs, **options)


@pytest.mark.row("N2")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@sizes_of_all([97, 200, 257, 600])
def test_half_precision(mechanism, dim, length, dtype):
    inputs = mechanism.draw(Sizes(rows=length, dim=dim), seed=dim, dtype=dtype)
    assert_accurate(mechanism, inputs, causal=True)


@pytest.mark.row("N2")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@by_mechanism
def test_half_precision_beats_the_naive_evaluation(mechanism, dtype):
    """The goal beyond the bound: 0.7 of the naive error (PyTorch: 0.68), or the last rounding."""
    inputs = mechanism.draw(Sizes(batch=2, heads=4, rows=300, dim=64), dtype=dtype)
    exact = mechanism.exact(inputs, causal=True)
    got, naive = mechanism.forward(**inputs, causal=True), mechanism.naive(**inputs, causal=True)
    rounding = largest_error(exact.astype(got.dtype), exact)
    assert largest_error(got, exact) <= max(0.7 * largest_error(naive, exact), 1.01 * rounding)


@pytest.mark.row("N7")
@pytest.mark.parametrize("length", [33, 1100])
@pytest.mark.parametrize("excess", [-1, 0, 1, 2**63 - 1])
@by_mechanism
def test_a_window_that_hides_nothing(mechanism, length, excess):
    """w >= n - 1 is the same as no window: to the bit, as the tile grid depends on lengths alone."""
    inputs = mechanism.draw(Sizes(rows=length))
    for causal in (True, False):
        unlimited = mechanism.forward(**inputs, causal=causal)
        windowed = mechanism.forward(**inputs, causal=causal, window=min(length + excess, 2**63 - 1))
        np.testing.assert_array_equal(windowed, unlimited)


def huge_scores(mechanism, magnitude: float, dtype: str = "float32", seed: int = 3):
    """Scores of about `magnitude`; every key comes twice, so that a row's largest score is always shared."""
    inputs = mechanism.draw(Sizes(rows=150, dim=16), seed=seed)
    for name in {"key", "key_mass"} & set(inputs):
        inputs[name][:, :, 75:] = inputs[name][:, :, :75]
    for name in ("query_mass", "key_mass") if mechanism.has_masses else ("query", "key"):
        inputs[name] *= np.float32(magnitude**0.5)
    return {name: array.astype(DTYPES[dtype]) for name, array in inputs.items()}


@pytest.mark.row("N9")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("magnitude", [1e2, 1e4, 1e10, 1e20, 1e30])
@by_mechanism
def test_huge_scores(mechanism, magnitude, causal):
    """The largest errors of several draws together: of one, naive arithmetic may be right by luck."""
    ours, allowed = [], []
    for seed in range(3, 7):
        inputs = huge_scores(mechanism, magnitude, seed=seed)
        got, exact = mechanism.forward(**inputs, causal=causal), mechanism.exact(inputs, causal=causal)
        assert np.isfinite(got).all()
        ours.append(largest_error(got, exact))
        allowed.append(allowed_error(mechanism, inputs, exact, causal=causal))
    assert sum(ours) <= sum(allowed)


@pytest.mark.row("N9")
@by_rule
def test_float16_scores_beyond_its_range(mechanism):
    """Scores of 1e6 from float16 inputs (largest number 65504): they are summed in float32."""
    inputs = huge_scores(mechanism, 1e6, "float16")
    got, exact = mechanism.forward(**inputs), mechanism.exact(inputs)
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=1e-3)


@pytest.mark.row("N9")
@pytest.mark.parametrize("sign", [1, -1])
@with_unbounded_scores
def test_scores_beyond_float32(mechanism, sign):
    """A score of +-1e40: NaN by IEEE where it is +inf, a weight of zero where -inf, no trace elsewhere."""
    inputs = mechanism.draw(Sizes(heads=1, rows=20, dim=4))
    if mechanism.has_masses:
        own, other, options = "query_mass", "key_mass", {"gravity": sign}
    else:
        own, other, options = "query", "key", {"scale": 0.5 * sign}
    inputs[own][:] = 1
    inputs[own][0, 0, 7] = inputs[other][0, 0, 3] = 1e20
    got, exact = mechanism.forward(**inputs, **options), mechanism.exact(inputs, **options)
    if sign > 0:
        assert np.isnan(got[0, 0, 7]).all()
        got[0, 0, 7] = exact[0, 0, 7]
    np.testing.assert_allclose(got, exact, rtol=0, atol=1e-6)


@pytest.mark.row("N12")
@pytest.mark.parametrize("place", ["query", "key", "value"])
@by_mechanism
def test_denormal_inputs_are_no_harm(mechanism, place):
    """They may count as zero: the result is right to the smallest normal number."""
    inputs = mechanism.draw(Sizes(rows=300))
    inputs[place] *= np.float32(1e-39)
    got, exact = mechanism.forward(**inputs), mechanism.exact(inputs)
    tolerance = np.finfo(np.float32).tiny if place == "value" else 2e-6
    assert largest_error(got, exact) <= tolerance


@pytest.mark.row("N12")
@by_mechanism
def test_denormal_inputs_cost_no_time(mechanism):
    normal = mechanism.draw(Sizes(heads=4, rows=700, dim=64))
    denormal = {name: array * np.float32(1e-40) for name, array in normal.items()}

    def seconds(inputs):
        start = time.perf_counter()
        mechanism.forward(**inputs)
        return time.perf_counter() - start

    # In turns, and the fastest of each: on a busy machine a few rounds are undisturbed. A slow path through
    # denormals takes 10 times as long in every round.
    rounds = [(seconds(denormal), seconds(normal)) for _ in range(25)]
    fastest = [min(times) for times in zip(*rounds, strict=True)]
    assert fastest[0] < 2 * fastest[1]


@pytest.mark.row("N13")
@pytest.mark.parametrize("threads", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@variants
@by_rule
def test_bit_identical_for_any_number_of_threads(mechanism, options, dtype, threads, use_threads):
    inputs = mechanism.draw(Sizes(batch=2, heads=4, kv_heads=2, rows=600, dim=24), dtype=dtype)
    use_threads(1)
    output = mechanism.forward(**inputs, **options)
    measured = mechanism.forward(**inputs, **options, return_lse=True, metrics=ra.MetricOptions())
    use_threads(threads)
    for repeat in range(20 if mechanism.has_masses else 100):  # the loop is the same, the scores are slower
        np.testing.assert_array_equal(mechanism.forward(**inputs, **options), output)
        if repeat < 10:
            again = mechanism.forward(**inputs, **options, return_lse=True, metrics=ra.MetricOptions())
            assert_same_result(again, measured)


def assert_same_result(got, expected):
    np.testing.assert_array_equal(got.output, expected.output)
    np.testing.assert_array_equal(got.lse, expected.lse)
    for (name, a), (_, b) in zip(got.metrics, expected.metrics, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


POSITIONS = (0, 1, 47, 48, 300, 511, 512, 513, 700, 1099)
REACHES = {"causal": (2000, 0), "window": (60, 0), "two-sided": (30, 9)}


@pytest.mark.row("N14")
@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
@pytest.mark.parametrize("j", POSITIONS)
@by_rule
def test_causality_and_locality(mechanism, reach, j):
    """Another key and value at j change exactly the rows that see j, and leave every bit of the rest.

    (Those to which j is not lost beside far larger weights.)
    """
    inputs = mechanism.draw(Sizes(heads=2, rows=1100, dim=8))
    before = mechanism.forward(**inputs, window=reach)
    weighs = mechanism.weights(**wide(mechanism.map_inputs(inputs)), window=reach)[0][..., j] > 1e-5
    inputs["key"][:, :, j] += 1
    inputs["value"][:, :, j] -= 1
    changed = (mechanism.forward(**inputs, window=reach) != before).any(axis=-1)
    distance = np.arange(1100) - j
    sees = (distance <= reach[0]) & (-distance <= reach[1])
    assert not changed[:, :, ~sees].any()
    assert weighs[:, :, ~sees].sum() == 0 < weighs.sum()
    assert changed[weighs].all()


@pytest.mark.row("N16")
@pytest.mark.parametrize("dtype", DTYPES)
@variants
@by_mechanism
def test_no_systematic_bias(mechanism, options, dtype):
    """Rounding errors cancel: their mean is below half a unit of the largest output (oneDNN's form)."""
    inputs = mechanism.draw(Sizes(batch=2, heads=4, rows=400, dim=32), dtype=dtype)
    exact = mechanism.exact(inputs, **options)
    got = mechanism.forward(**inputs, **options).astype(np.float64)
    eps = float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    for name, errors in {"signed": got - exact, "away from zero": (got - exact) * np.sign(exact)}.items():
        assert abs(errors.mean()) <= 0.5 * eps * np.abs(exact).max() * 0.1, name
