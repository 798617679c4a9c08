"""Rows N5, N6, N15 and H2: decoding gives the rows of one forward pass, however it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.residual_linear import reference_features

from tests.decoding import (
    LENGTH,
    cache_for,
    decode,
    draw,
    largest_difference,
    norm_weights,
    part,
    reference_rattention_steps,
    state_of,
)
from tests.mechanisms import last_rounding

WINDOWS = {"0": 0, "1": 1, "5": 5, "31": 31, "n-1": LENGTH - 1, "n": LENGTH, "2n": 2 * LENGTH}
TOLERANCE = 1e-5


@pytest.mark.row("N5")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("feature_map", ["softmax", "relu"])
@pytest.mark.parametrize("rope_theta", [None, 1e4])
def test_steps_are_the_forward_pass(window: str, feature_map: str, rope_theta: float | None) -> None:
    inputs = draw()
    options = {"feature_map": feature_map, "rope_theta": rope_theta}
    weights = norm_weights(inputs)
    cache = cache_for(inputs, WINDOWS[window], **options)
    got = decode(inputs, cache, list(range(1, LENGTH)), **weights)
    law, _ = reference_rattention_steps(**inputs, window=WINDOWS[window], **options, **weights)
    assert largest_difference(got, law) <= TOLERANCE
    forward = ra.rattention(**inputs, window=WINDOWS[window], **options, **weights)
    assert largest_difference(got, forward) <= TOLERANCE


SPLIT_LENGTH = 33


@pytest.mark.row("N6")
@pytest.mark.parametrize("split", range(SPLIT_LENGTH + 1))
def test_every_split_of_prefill_and_steps(split: int) -> None:
    inputs = draw(SPLIT_LENGTH)
    forward = ra.rattention(**inputs, window=7, rope_theta=1e4)
    cache = cache_for(inputs, 7, rope_theta=1e4)
    cuts = [split, *range(split + 1, SPLIT_LENGTH)] if split < SPLIT_LENGTH else [split]
    assert largest_difference(decode(inputs, cache, cuts), forward) <= TOLERANCE
    assert cache.length == SPLIT_LENGTH


@pytest.mark.row("N6")
@pytest.mark.parametrize("seed", range(32))
def test_ragged_batches(seed: int) -> None:
    """Sequences take in tokens at paces of their own, none at all included; each is as if alone."""
    rng = np.random.default_rng(seed)
    inputs = draw(SPLIT_LENGTH, batch=3, seed=seed)
    window = int(rng.integers(0, 12))
    forward = ra.rattention(**inputs, window=window, rope_theta=1e4)
    cache = cache_for(inputs, window, rope_theta=1e4)
    seen = np.zeros(3, np.int64)
    while seen.min() < SPLIT_LENGTH:
        tokens = int(rng.integers(1, 20))
        counts = np.minimum(rng.integers(0, tokens + 1, 3), SPLIT_LENGTH - seen)
        shapes = {name: (3, a.shape[1], tokens, a.shape[3]) for name, a in inputs.items()}
        step = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
        for b in range(3):
            for name, array in inputs.items():
                step[name][b, :, : counts[b]] = array[b, :, seen[b] : seen[b] + counts[b]]
        rows = ra.rattention_step(**step, cache=cache, lengths=counts)
        for b in range(3):
            wanted = forward[b : b + 1, :, seen[b] : seen[b] + counts[b]]
            assert largest_difference(rows[b : b + 1, :, : counts[b]], wanted) <= TOLERANCE
            assert not rows[b, :, counts[b] :].any()
        seen += counts
        assert cache.lengths.tolist() == seen.tolist()
        assert cache.length == seen.max()


@pytest.mark.row("N6")
@pytest.mark.parametrize("window", [0, 3, 100, 511, 700, 2000])
@pytest.mark.parametrize("rope_theta", [None, 1e4])
@pytest.mark.parametrize("wide", [False, True])
def test_long_prompts_in_pieces(window: int, rope_theta: float | None, wide: bool) -> None:
    """Long pieces behind the first are taken in several blocks."""
    sizes = {"heads": 16, "kv_heads": 1, "dim": 4, "value_dim": 128} if wide else {"dim": 8, "value_dim": 5}
    inputs = draw(1500, **sizes)  # type: ignore[arg-type]
    forward = ra.rattention(**inputs, window=window, rope_theta=rope_theta)
    for seed, pieces in enumerate((1, 2, 5, 30)):
        cuts = sorted(np.random.default_rng(seed).integers(0, 1500, pieces - 1).tolist())
        cache = cache_for(inputs, window, rope_theta=rope_theta)
        assert largest_difference(decode(inputs, cache, cuts), forward) <= TOLERANCE


SHAPES = {
    "one head": {"heads": 1, "kv_heads": 1},
    "one group": {"heads": 7, "kv_heads": 1},
    "many groups": {"heads": 24, "kv_heads": 2, "dim": 5},
    "wide values": {"dim": 6, "value_dim": 70},
    "narrow values": {"dim": 33, "value_dim": 1},
    "head_dim 1": {"dim": 1, "value_dim": 3},
    "head_dim 128": {"dim": 128},
    "head_dim 129": {"dim": 129},
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case: str) -> None:
    inputs = draw(60, batch=2, **SHAPES[case])  # type: ignore[arg-type]
    law, state = reference_rattention_steps(**inputs, window=9)
    cache = cache_for(inputs, 9)
    assert largest_difference(decode(inputs, cache, [20, 21, 22, 23]), law) <= 3 * TOLERANCE
    group = inputs["query"].shape[1] // inputs["key"].shape[1]
    # The cache is one key ahead: it takes in the key that the next row will read.
    left = inputs["key"].shape[2] - 10
    k, v = (inputs[name][:, :, left].astype(np.float64) for name in ("key", "value"))
    ahead = np.einsum("bhf,bhv->bhfv", reference_features(k, "softmax"), v)
    assert largest_difference(state_of(cache), state[:, ::group] + ahead) <= TOLERANCE


@pytest.mark.row("H2")
@pytest.mark.parametrize("window", [0, 1, 16, 1000])
@pytest.mark.parametrize("dim", [1, 40])
def test_the_first_token_sees_itself_alone(window: int, dim: int) -> None:
    inputs = draw(1, batch=2, dim=dim)
    value = np.repeat(inputs["value"].astype(np.float64), 2, axis=1)
    wanted = value / np.sqrt((value**2).mean(axis=-1, keepdims=True) + 1e-8)
    got = ra.rattention_step(**inputs, cache=cache_for(inputs, window))
    assert largest_difference(got, wanted) <= 1e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("rope_theta", [None, 1e4])
@pytest.mark.parametrize("pieces", ["steps", "prompt"])
def test_half_precision(dtype: str, rope_theta: float | None, pieces: str) -> None:
    """State and turned keys are float32, tokens are kept as they came: the last rounding alone is lost."""
    inputs = draw(200, dtype=dtype)
    law, _ = reference_rattention_steps(**inputs, window=20, rope_theta=rope_theta)
    cuts = list(range(1, 200)) if pieces == "steps" else [150]
    got = decode(inputs, cache_for(inputs, 20, rope_theta=rope_theta), cuts)
    assert got.dtype == inputs["query"].dtype
    rounding = last_rounding(inputs["value"]) * np.abs(law).max()
    assert largest_difference(got, law) <= 1.1 * rounding


@pytest.mark.row("N20")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("amplitude", [1, 3, 8])
@pytest.mark.parametrize("tokens", [1, 5, 32, 95])
def test_half_precision_steps_are_as_exact_as_the_forward_pass(
    dtype: str, amplitude: float, tokens: int
) -> None:
    """Turned keys, rounded to 16 bits, would cost up to 25 times as much."""
    inputs = draw(96, dim=64, dtype=dtype)
    for name in ("query", "key"):
        inputs[name] = (inputs[name] * amplitude).astype(inputs[name].dtype)
    law, _ = reference_rattention_steps(**inputs, window=31, rope_theta=1e4)
    forward = largest_difference(ra.rattention(**inputs, window=31, rope_theta=1e4), law)
    cache = cache_for(inputs, 31, rope_theta=1e4)
    first = decode(part(inputs, 0, 50), cache, list(range(tokens, 50, tokens)))
    cache = ra.RAttentionCache.from_bytes(cache.to_bytes())
    rest = decode(part(inputs, 50, 96), cache, list(range(tokens, 46, tokens)))
    assert largest_difference(np.concatenate([first, rest], axis=2), law) <= 1.1 * forward


def drift(tokens: int, values: str) -> float:
    """Of the state against float64, relative to its largest element; tokens come a few at a time."""
    rng = np.random.default_rng(0)
    dim, window, piece = 8, 3, 50
    cache = ra.RAttentionCache(1, 1, dim, window)
    exact = np.zeros((2 * dim, dim))
    waiting: list[Any] = []
    for _ in range(tokens // piece):
        k, v = (rng.standard_normal((piece, dim), np.float32) for _ in range(2))
        if values == "constant":
            k[:], v[:] = np.linspace(-1, 1, dim), 1.2345
        ra.rattention_step(*(a[None, None] for a in (k, k, v)), cache)
        waiting.append((k, v))
        if len(waiting) > 1:  # all of the piece before has left the window
            k, v = (a.astype(np.float64) for a in waiting.pop(0))
            exact += reference_features(k, "softmax").T @ v
    k, v = (a[: piece - window].astype(np.float64) for a in waiting.pop())
    exact += reference_features(k, "softmax").T @ v
    return float(np.abs(state_of(cache)[0, 0] - exact).max() / np.abs(exact).max())


VALUES = ["random", "constant"]
"""Terms that are always the same are the worst case for plain sums: all are rounded the same way."""


@pytest.mark.row("N15")
@pytest.mark.parametrize("values", VALUES)
def test_the_state_does_not_drift(values: str) -> None:
    assert drift(100_000, values) <= 5e-6


@pytest.mark.slow
@pytest.mark.row("N15")
@pytest.mark.parametrize("values", VALUES)
def test_the_state_does_not_drift_over_a_million_tokens(values: str) -> None:
    assert drift(1_000_000, values) <= 5e-6


@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("pieces", ["steps", "prompt"])
def test_nan_poisons_what_sees_it(name: str, pieces: str) -> None:
    """A query its own row; a key or value of the window's rows, and all rows after it through the state."""
    inputs, window, bad = draw(300), 9, 120
    clean = decode(inputs, cache_for(inputs, window), [150])
    inputs[name][0, 1, bad, 2] = np.nan
    cuts = list(range(1, 300)) if pieces == "steps" else [130]
    got = decode(inputs, cache_for(inputs, window), cuts)
    poisoned = np.isnan(got).any(axis=3)
    wanted = np.zeros_like(poisoned)
    wanted[0, 1 if name == "query" else slice(2, 4), bad : bad + 1 if name == "query" else None] = True
    np.testing.assert_array_equal(poisoned, wanted)
    assert largest_difference(got[~poisoned], clean[~poisoned]) <= TOLERANCE


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(threads: int, use_threads: Any) -> None:
    inputs = draw(700, batch=2, heads=8, kv_heads=4, dim=64)
    results = []
    for n in (1, threads):
        use_threads(n)
        results.append(decode(inputs, cache_for(inputs, 400, rope_theta=1e4), [500, 501, 502, 510]))
    np.testing.assert_array_equal(*results)


def test_any_layout_of_the_inputs() -> None:
    inputs = draw(30)
    wanted = decode(inputs, cache_for(inputs, 6), [10])
    odd = {}
    for name, array in inputs.items():
        odd[name] = np.asfortranarray(array)[:, :, ::-1][:, :, ::-1]
        odd[name].flags.writeable = False
    np.testing.assert_array_equal(decode(odd, cache_for(odd, 6), [10]), wanted)


def test_scale_and_eps_are_those_of_the_forward_pass() -> None:
    inputs = draw(30)
    options = {"scale": 0.7, "eps": 0.3}
    law, _ = reference_rattention_steps(**inputs, window=6, **options)
    assert largest_difference(decode(inputs, cache_for(inputs, 6), [10, 11], **options), law) <= TOLERANCE
