"""Decoding with the gated delta rule: steps, snapshots, bytes, and what is refused."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms import reference_gated_delta_rule

from tests.gated_delta import draw
from tests.linear_family import relative_error

gates = pytest.mark.parametrize("channels", [False, True], ids=["per head", "per channel"])


def part(inputs: dict[str, Any], first: int, last: int) -> dict[str, Any]:
    return {name: array[:, :, first:last] for name, array in inputs.items() if name != "initial_state"}


@gates
@pytest.mark.parametrize("value_dim", [16, 5])
@pytest.mark.parametrize("cuts", [(0, 1, 2, 3), (0, 40, 41, 97, 98), (0, 99), (48, 96)])
def test_steps_are_the_whole(cuts: tuple[int, ...], value_dim: int, channels: bool) -> None:
    length = 100
    inputs = draw(length, batch=2, heads=4, kv_heads=2, dim=16, value_dim=value_dim, channels=channels)
    output, state = reference_gated_delta_rule(**inputs, normalize=True)
    cache = ra.GatedDeltaCache(2, 4, 16, value_dim=value_dim)
    ends = (0, *cuts, length)
    rows = [
        ra.gated_delta_step(**part(inputs, first, last), cache=cache, normalize=True)
        for first, last in itertools.pairwise(ends)
    ]
    assert cache.length == length
    assert relative_error(np.concatenate(rows, axis=2), output) <= 1e-5
    assert relative_error(cache.state, state) <= 1e-5


@gates
def test_a_hundred_thousand_steps(channels: bool) -> None:
    """Gates so near 1 that rounding them would show."""
    inputs = draw(100_000, heads=1, dim=8, channels=channels, strongest=0.0)
    inputs["log_gate"] -= np.float32(1e-5)
    cache = ra.GatedDeltaCache(1, 1, 8)
    for t in range(100_000):
        row = ra.gated_delta_step(**part(inputs, t, t + 1), cache=cache, normalize=True)
    output, state = reference_gated_delta_rule(**inputs, normalize=True)
    assert relative_error(row[:, :, 0], output[:, :, -1]) <= 1e-4
    assert relative_error(cache.state, state) <= 1e-4


def test_a_state_of_ones_own_goes_on_in_place() -> None:
    inputs = draw(5, state=True)
    state = inputs["initial_state"].copy()
    cache = ra.GatedDeltaCache.of(state, copy=False)
    for t in range(5):
        ra.gated_delta_step(**part(inputs, t, t + 1), cache=cache)
    np.testing.assert_array_equal(state, cache.state)
    assert relative_error(state, reference_gated_delta_rule(**inputs)[1]) <= 1e-6
    for bad in (state.astype(np.float16), state.swapaxes(2, 3), np.broadcast_to(state, state.shape)):
        with pytest.raises(ValueError, match="state must be a contiguous float32 array"):
            ra.GatedDeltaCache.of(bad, copy=False)


def test_sequences_of_different_lengths() -> None:
    """A token that is hidden is no token."""
    inputs = draw(6, batch=2, state=True)
    shown = np.array([[True] * 6, [True, True, False, False, False, True]])
    cache = ra.GatedDeltaCache.of(inputs["initial_state"])
    for t in range(6):
        ra.gated_delta_step(**part(inputs, t, t + 1), cache=cache, key_mask=shown[:, t : t + 1])
    exact = reference_gated_delta_rule(**inputs, key_mask=shown)[1]
    assert relative_error(cache.state, exact) <= 1e-6


def test_snapshots_go_back_bit_for_bit() -> None:
    inputs = draw(60, batch=2)
    cache = ra.GatedDeltaCache(2, 2, 8)
    ra.gated_delta_step(**part(inputs, 0, 40), cache=cache)
    before = cache.snapshot()
    after = ra.gated_delta_step(**part(inputs, 40, 50), cache=cache)
    copies = [
        copy.deepcopy(cache),
        pickle.loads(pickle.dumps(cache)),
        ra.GatedDeltaCache.from_bytes(cache.to_bytes()),
    ]
    cache.restore(before)
    assert cache.length == 40
    np.testing.assert_array_equal(ra.gated_delta_step(**part(inputs, 40, 50), cache=cache), after)
    for other in copies:
        assert other.length == cache.length
        np.testing.assert_array_equal(other.state, cache.state)
    swapped = cache.select(np.array([1, 0, 1]))
    np.testing.assert_array_equal(swapped.state, cache.state[[1, 0, 1]])
    assert swapped.nbytes == 3 * 2 * 8 * 8 * 4
    assert repr(swapped) == "GatedDeltaCache(batch=3, heads=2, head_dim=8, value_dim=8, length=50)"


def test_what_a_cache_refuses() -> None:
    cache = ra.GatedDeltaCache(1, 2, 8)
    inputs = draw(1)
    before = cache.state.copy()
    with pytest.raises(TypeError, match="cache must be a GatedDeltaCache"):
        ra.gated_delta_step(**inputs, cache=None)
    with pytest.raises(ValueError, match=r"^cache\.state must have shape \(1, 3, 8, 8\), got \(1, 2, 8, 8\)"):
        ra.gated_delta_step(**draw(1, heads=3), cache=cache)
    with pytest.raises(ValueError, match="log_gate must be <= 0"):
        ra.gated_delta_step(**inputs | {"log_gate": -inputs["log_gate"] + 1}, cache=cache)
    np.testing.assert_array_equal(cache.state, before)
    with pytest.raises(ValueError, match="snapshot must have a state of shape"):
        cache.restore(ra.GatedDeltaCache(1, 2, 9))
    with pytest.raises(TypeError, match="snapshot must come from"):
        cache.restore(cache.state)
    with pytest.raises(ValueError, match=r"sequences must lie in \[0, 0\]"):
        cache.select(np.array([1]))
    for bad, error in ((-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="heads must be"):
            ra.GatedDeltaCache(1, bad, 8)
    with pytest.raises(MemoryError):
        ra.GatedDeltaCache(2**40, 2**20, 2**10)


@pytest.mark.parametrize(
    "data",
    [b"", b"other", ra.GatedDeltaCache(1, 2, 3).to_bytes()[:-1], b"\x93RATDLTA" + bytes(60)],
    ids=["nothing", "other", "cut off", "zeros"],
)
def test_bytes_of_no_cache(data: bytes) -> None:
    with pytest.raises(ValueError, match="data is"):
        ra.GatedDeltaCache.from_bytes(data)
    damaged = bytearray(ra.GatedDeltaCache(1, 2, 3).to_bytes())
    damaged[-1] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        ra.GatedDeltaCache.from_bytes(damaged)
    with pytest.raises(TypeError, match="data must be bytes"):
        ra.GatedDeltaCache.from_bytes("text")
