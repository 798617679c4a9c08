"""The cache as an object: constant size, snapshots, settings, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.residual_linear import reference_features

from tests.decoding import CONFIGURATIONS, cache_for, decode, draw, filled, next_rows, part, state_of


def test_the_size_is_constant() -> None:
    inputs = draw(2000)
    cache = cache_for(inputs, 16)
    sizes = {cache.nbytes}
    for first in range(0, 2000, 100):
        ra.rattention_step(**part(inputs, first, first + 100), cache=cache)
        sizes.add(cache.nbytes)
    assert len(sizes) == 1
    assert sizes.pop() < 40_000


def test_half_precision_halves_the_ring() -> None:
    sizes = [ra.RAttentionCache(1, 1, 64, 10_000, dtype=dtype).nbytes for dtype in ("float32", "bfloat16")]
    keys_and_values = 10_000 * 64 * 2
    assert abs((sizes[0] - sizes[1]) / (keys_and_values * 2) - 1) < 0.01


def test_turned_keys_stay_in_single_precision() -> None:
    """Four bytes an element in the place of two."""
    plain, turned = (
        ra.RAttentionCache(1, 1, 64, 10_000, dtype="bfloat16", rope_theta=theta).nbytes
        for theta in (None, 1e4)
    )
    assert abs((turned - plain) / (64 * 10_000 * 2) - 1) < 0.02


def test_a_rotary_embedding_needs_no_memory_of_its_own() -> None:
    plain, turned = (ra.RAttentionCache(1, 2, 64, 500, rope_theta=theta).nbytes for theta in (None, 1e4))
    assert plain == turned


@pytest.mark.parametrize("window", [1, 7, 8, 16, 33, 64])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rope_theta", [None, 1e4])
def test_recent_keys_are_those_that_came(window: int, dtype: str, rope_theta: float | None) -> None:
    """To the bit where no rotary embedding turns them; else up to rounding of their pairs in float32."""
    inputs = draw(90, batch=2, dtype=dtype)
    cache = cache_for(inputs, window, rope_theta=rope_theta)
    for first, last in ((0, 3), (3, 50), (50, 51), (51, 90)):
        ra.rattention_step(**part(inputs, first, last), cache=cache)
        expected = inputs["key"][:, :, max(0, last - window) : last]
        kept = cache.recent_keys().view(expected.dtype)  # bfloat16 comes as its bits
        if rope_theta is None:
            np.testing.assert_array_equal(kept, expected)
        else:
            ulp = 0 if dtype == "float32" else 2.0 ** (-8 if dtype == "bfloat16" else -11)
            wide = [array.astype(np.float64) for array in (kept, expected)]
            np.testing.assert_allclose(*wide, rtol=ulp, atol=1e-6)


@pytest.mark.parametrize("position", [0, 1 << 10, 10**6, 2**31])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window", [1, 5, 8, 16, 48])
def test_the_state_has_keys_as_they_came_wherever_they_stood(position: int, dtype: str, window: int) -> None:
    """Keys are turned to their positions while they are in the window, and back when they leave it."""
    inputs = draw(150, dtype=dtype, dim=20, value_dim=7)
    if dtype == "bfloat16" and position < 2**31:  # partners of large elements keep nothing of them
        large, partner = inputs["key"][..., 3], inputs["key"][..., 13]
        large[:] = 1000
        partner[np.abs(partner) < 0.25] = 0.25  # smaller ones would: float32 turns them less exactly
    cache = cache_for(inputs, window, rope_theta=1e4)
    lengths, *rest = cache._core.write()
    rest = [array.view(np.uint8) for array in rest]
    cache._core.read(np.full_like(lengths, position // window * window).view(np.uint8), *rest)
    decode(inputs, cache, [1, 2, 5, 40, 80, 81, 82, 100])
    key, value = (inputs[name][:, :, : 150 - window].astype(np.float64) for name in ("key", "value"))
    expected = np.einsum("bhjf,bhjv->bhfv", reference_features(key, "softmax"), value)
    np.testing.assert_allclose(state_of(cache), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("tokens", [0, 5, 8, 9, 25])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_restore_goes_back_bit_for_bit(tokens: int, configuration: str) -> None:
    cache, inputs = filled(tokens, **CONFIGURATIONS[configuration])
    snapshot = cache.snapshot()
    first = next_rows(cache, inputs)
    saved = cache.to_bytes()
    for _ in range(2):
        cache.restore(snapshot)
        assert cache.lengths.tolist() == [tokens, tokens]
        np.testing.assert_array_equal(next_rows(cache, inputs), first)
        assert cache.to_bytes() == saved


def test_a_snapshot_starts_another_cache_of_its_kind() -> None:
    cache, inputs = filled()
    other, _ = filled(3)
    other.restore(cache.snapshot())
    np.testing.assert_array_equal(next_rows(other, inputs), next_rows(cache, inputs))


OTHERS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "batch": ((3, 2, 6, 8), {}),
    "kv_heads": ((2, 1, 6, 8), {}),
    "head_dim": ((2, 2, 8, 8), {}),
    "value_dim": ((2, 2, 6, 8), {"value_dim": 6}),
    "window": ((2, 2, 6, 9), {}),
    "feature_map": ((2, 2, 6, 8), {"feature_map": "relu"}),
    "rotary embedding": ((2, 2, 6, 8), {"rope_theta": 1e4}),
    "dtype": ((2, 2, 6, 8), {"dtype": "float16"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_snapshot_of_another_kind_of_cache(name: str) -> None:
    sizes, options = OTHERS[name]
    cache, _ = filled()
    before = cache.to_bytes()
    snapshot = ra.RAttentionCache(*sizes, **({"value_dim": 5} | options)).snapshot()
    with pytest.raises(ValueError, match=f"snapshot is of another cache: its {name} is"):
        cache.restore(snapshot)
    assert cache.to_bytes() == before


def test_nothing_is_selected_of_nothing() -> None:
    empty = ra.RAttentionCache(0, 1, 2, 5).select(np.arange(0))
    assert empty.lengths.shape == (0,)
    assert filled()[0].select(np.arange(0)).lengths.shape == (0,)


@pytest.mark.parametrize("what", [None, b"", 3, "cache"])
def test_restore_wants_a_snapshot(what: object) -> None:
    cache, _ = filled()
    what = cache if what == "cache" else what
    with pytest.raises(TypeError, match="snapshot must come from snapshot"):
        cache.restore(what)  # type: ignore[arg-type]


SETTINGS = {
    "scale": 0.3,
    "local_norm_weight": np.linspace(0.5, 2, 20, dtype=np.float32).reshape(4, 5),
    "linear_norm_weight": np.linspace(2, 0.5, 20, dtype=np.float32).reshape(4, 5),
    "eps": 0.1,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_that_of_every_step(name: str) -> None:
    """And of what comes of the cache; a step may be called with another."""
    setting = {name: SETTINGS[name]}
    cache, inputs = filled(rope_theta=1e4, **setting)
    rows = next_rows(cache.select(np.arange(2)), inputs)
    plain, _ = filled(rope_theta=1e4)
    np.testing.assert_array_equal(decode(inputs, plain.select(np.arange(2)), [3, 4, 5], **setting), rows)
    assert np.abs(next_rows(plain, inputs) - rows).max() > 1e-3
    other = {name: np.ones((4, 5), np.float32) if "weight" in name else 1.5}
    expected = decode(inputs, filled(rope_theta=1e4)[0], [3, 4, 5], **other)
    np.testing.assert_array_equal(decode(inputs, cache.select(np.arange(2)), [3, 4, 5], **other), expected)
    for twin in (pickled(cache), copy.deepcopy(cache), ra.RAttentionCache.from_bytes(cache.to_bytes())):
        assert repr(twin) == repr(cache)
        np.testing.assert_array_equal(next_rows(twin, inputs), rows)
    assert f"{name}={'float32[4, 5]' if 'weight' in name else SETTINGS[name]}" in repr(cache)


def test_steps_with_all_settings_are_the_forward_pass() -> None:
    inputs = draw(40, batch=2, dim=6, value_dim=5)
    cache = cache_for(inputs, 8, rope_theta=1e4, **SETTINGS)
    expected = ra.rattention(**inputs, window=8, rope_theta=1e4, **SETTINGS)
    np.testing.assert_allclose(decode(inputs, cache, [7, 8, 30]), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_copied() -> None:
    weight = np.ones((4, 5), np.float32)
    cache, inputs = filled(local_norm_weight=weight)
    twin = copy.copy(cache)
    weight[:] = 7
    np.testing.assert_array_equal(next_rows(cache, inputs), next_rows(twin, inputs))


def pickled(cache: ra.RAttentionCache) -> Any:
    return pickle.loads(pickle.dumps(cache))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_copies_go_their_own_way(duplicate: Any) -> None:
    cache, inputs = filled(rope_theta=1e4)
    twin = duplicate(cache)
    first = next_rows(cache, inputs)
    np.testing.assert_array_equal(next_rows(twin, inputs), first)


BAD_CACHES: dict[str, tuple[dict[str, Any], type[Exception], str | None]] = {
    "scale NaN": ({"scale": np.nan}, ValueError, "scale must be finite"),
    "eps 0": ({"eps": 0.0}, ValueError, "eps must be > 0"),
    "weights of another value_dim": (
        {"local_norm_weight": np.ones((2, 3), np.float32)},
        ValueError,
        "local_norm_weight must have shape",
    ),
    "weights of heads that do not divide": (
        {"linear_norm_weight": np.ones((3, 6), np.float32)},
        ValueError,
        "linear_norm_weight must have shape",
    ),
    "weights in float64": (
        {"local_norm_weight": np.ones((2, 6))},
        TypeError,
        r"^write local_norm_weight\.astype\(np\.float32\): local_norm_weight has dtype float64",
    ),
    "window -1": ({"window": -1}, ValueError, "window must be >= 0, got -1"),
    "window None": ({"window": None}, TypeError, "window must be an integer"),
    "window a float": ({"window": 2.0}, TypeError, "window must be an integer"),
    "window True": ({"window": True}, TypeError, "window must be an integer"),
    "window beyond memory": ({"window": 2**63}, MemoryError, None),
    "window beyond counting": ({"window": 10**40}, MemoryError, None),
    "window of 2^50": ({"window": 2**50}, MemoryError, None),
    "batch -1": ({"batch": -1}, ValueError, "batch must be >= 0"),
    "batch too large": ({"batch": 2**40}, ValueError, "batch must be <= "),
    "kv_heads a string": ({"kv_heads": "2"}, TypeError, "kv_heads must be an integer"),
    "head_dim 0": ({"head_dim": 0}, ValueError, "head_dim must be >= 1"),
    "value_dim -1": ({"value_dim": -1}, ValueError, "value_dim must be >= 0"),
    "odd head_dim with rope": ({"head_dim": 5, "rope_theta": 1e4}, ValueError, "head_dim must be even"),
    "theta 0": ({"rope_theta": 0.0}, ValueError, "rope_theta must be > 0"),
    "theta negative": ({"rope_theta": -1.0}, ValueError, "rope_theta must be > 0"),
    "theta NaN": ({"rope_theta": np.nan}, ValueError, "rope_theta must be finite"),
    "theta a string": ({"rope_theta": "1"}, TypeError, "rope_theta must be a number"),
    "feature map unknown": ({"feature_map": "gelu"}, ValueError, "feature_map must be one of"),
    "feature map a list": ({"feature_map": []}, TypeError, r"feature_map must be a string, got \[\]"),
    "dtype True": ({"dtype": True}, TypeError, "dtype must be one of float32, .* got True"),
    "dtype None": ({"dtype": None}, TypeError, "dtype must be one of float32, .* got None"),
    "float64": ({"dtype": "float64"}, TypeError, "dtype must be one of float32"),
    "integers": ({"dtype": np.int32}, TypeError, "dtype must be one of float32"),
}


@pytest.mark.parametrize("case", BAD_CACHES)
def test_caches_that_cannot_be(case: str) -> None:
    changes, error, message = BAD_CACHES[case]
    with pytest.raises(error, match=message):
        ra.RAttentionCache(**({"batch": 1, "kv_heads": 2, "head_dim": 4, "window": 3} | changes))


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


BAD_STEPS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "another batch": (
        {"query": ones(1, 4, 3, 6), "key": ones(1, 2, 3, 6), "value": ones(1, 2, 3, 5)},
        ValueError,
        "key has batch 1, the cache has 2",
    ),
    "other heads": (
        {"key": ones(2, 4, 3, 6), "value": ones(2, 4, 3, 5)},
        ValueError,
        "key has heads 4, the cache has 2",
    ),
    "heads that do not divide": ({"query": ones(2, 3, 3, 6)}, ValueError, "key has 2 heads, query has 3"),
    "another head_dim": (
        {"query": ones(2, 4, 3, 7), "key": ones(2, 2, 3, 7)},
        ValueError,
        "key has head_dim 7, the cache has 6",
    ),
    "head_dims that differ": ({"query": ones(2, 4, 3, 7)}, ValueError, "key has head_dim 6, query has 7"),
    "another value_dim": ({"value": ones(2, 2, 3, 6)}, ValueError, "value has value_dim 6, the cache has 5"),
    "more keys than queries": (
        {"key": ones(2, 2, 4, 6), "value": ones(2, 2, 4, 5)},
        ValueError,
        "key has length 4, query has 3",
    ),
    "more values than keys": ({"value": ones(2, 2, 4, 5)}, ValueError, "value has length 4, key has 3"),
    "rank 3": ({"query": ones(4, 3, 6)}, ValueError, "query must have 4 dimensions, got 3"),
    "float64": ({"query": ones(2, 4, 3, 6, dtype=float)}, TypeError, "query has dtype float64"),
    "dtypes that differ": (
        {"value": ones(2, 2, 3, 5, dtype=np.float16)},
        TypeError,
        "value is float16, the cache keeps float32",
    ),
    "another dtype": (
        {
            name: ones(*shape, dtype=np.float16)
            for name, shape in {"query": (2, 4, 3, 6), "key": (2, 2, 3, 6), "value": (2, 2, 3, 5)}.items()
        },
        TypeError,
        "query is float16, the cache keeps float32",
    ),
    "no cache": ({"cache": None}, TypeError, "cache must be an RAttentionCache, got NoneType"),
    "scale NaN": ({"scale": np.nan}, ValueError, "scale must be finite"),
    "eps negative": ({"eps": -1.0}, ValueError, "eps must be > 0"),
    "eps infinite": ({"eps": np.inf}, ValueError, "eps must be finite"),
    "a weight per kv head": (
        {"local_norm_weight": ones(2, 5)},
        ValueError,
        r"local_norm_weight must have shape .* \(4, 5\)",
    ),
    "weights of rank 1": ({"linear_norm_weight": ones(5)}, ValueError, "linear_norm_weight must have 2 dim"),
    "weights of integers": ({"linear_norm_weight": ones(4, 5, dtype=int)}, TypeError, "linear_norm_weight"),
    "lengths too short": ({"lengths": np.array([1])}, ValueError, r"lengths must have one entry .* \(2\)"),
    "lengths beyond the tokens": ({"lengths": np.array([1, 4])}, ValueError, "lengths holds 4"),
    "lengths negative": ({"lengths": np.array([1, -1])}, ValueError, "lengths holds -1"),
    "lengths of floats": ({"lengths": np.array([1.0, 2.0])}, TypeError, "lengths must be an integer array"),
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_steps_that_cannot_be_leave_the_cache_alone(case: str) -> None:
    changes, error, message = BAD_STEPS[case]
    cache, _ = filled()
    before = cache.to_bytes()
    step = {"query": ones(2, 4, 3, 6), "key": ones(2, 2, 3, 6), "value": ones(2, 2, 3, 5), "cache": cache}
    with pytest.raises(error, match=message):
        ra.rattention_step(**(step | changes))
    assert cache.to_bytes() == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_float32_step_of_another_cache(dtype: str) -> None:
    cache, _ = filled(dtype=dtype)
    step = {"query": ones(2, 4, 3, 6), "key": ones(2, 2, 3, 6), "value": ones(2, 2, 3, 5), "cache": cache}
    with pytest.raises(TypeError, match=f"query is float32, the cache keeps {dtype}"):
        ra.rattention_step(**step)


@pytest.mark.parametrize("tokens", [0, 1, 40])
def test_nothing_to_do(tokens: int) -> None:
    for batch, heads, kv_heads in ((0, 4, 2), (2, 0, 0)):
        cache = ra.RAttentionCache(batch, kv_heads, 6, 3)
        keys = ones(batch, kv_heads, tokens, 6)
        rows = ra.rattention_step(ones(batch, heads, tokens, 6), keys, keys, cache)
        assert rows.shape == (batch, heads, tokens, 6)
        assert cache.length == (tokens if batch else 0)


def test_one_thread_at_a_time() -> None:
    """Whoever comes second is refused, or comes when the first is done: every token is counted once."""
    cache = ra.RAttentionCache(1, 8, 64, 2000)
    inputs = draw(50, heads=8, kv_heads=8, dim=64)
    done, refused, other = [0] * 4, [0] * 4, []

    def work(i: int) -> None:
        for _ in range(30):
            try:
                ra.rattention_step(**inputs, cache=cache)
                done[i] += 1
            except RuntimeError as error:
                refused[i] += 1
                if "in use by another thread" not in str(error):
                    other.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not other
    assert sum(done) + sum(refused) == 120
    assert cache.length == 50 * sum(done)
