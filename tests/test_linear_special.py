"""Infinity, NaN and short sequences in the linear family: no row depends on chunks, cuts or threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.rattention import rattention_backward, reference_rattention
from rattention.mechanisms.residual_linear import (
    reference_residual_linear_attention,
    residual_linear_attention_backward,
)

from tests.instruction_sets import every_isa
from tests.linear_family import Arrays, draw
from tests.processes import run_python

feature_maps = pytest.mark.parametrize("feature_map", ["softmax", "relu"])
LENGTH = 200


def kinds(rows: NDArray[Any]) -> NDArray[np.int64]:
    """0 where finite, 1 and -1 where infinite, 2 for NaN."""
    infinite = np.where(np.isinf(rows), np.sign(rows), 0)
    return np.where(np.isnan(rows), 2, infinite).astype(np.int64)


def decoded(inputs: Arrays, cuts: list[int], window: int, feature_map: str) -> NDArray[Any]:
    """In pieces, from a cache that is saved and restored before each."""
    _, kv_heads, length, dim = inputs["key"].shape
    sizes: dict[str, Any] = {"value_dim": inputs["value"].shape[3], "feature_map": feature_map}
    cache = ra.RAttentionCache(1, kv_heads, dim, window, **sizes)
    rows = []
    for first, last in zip([0, *cuts], [*cuts, length], strict=True):
        snapshot = cache.snapshot()
        cache = ra.RAttentionCache.from_bytes(cache.to_bytes())
        cache.restore(snapshot)
        piece = {name: array[:, :, first:last] for name, array in inputs.items()}
        rows.append(ra.rattention_step(**piece, cache=cache))
    return np.concatenate(rows, axis=2)


def assert_as_in_ieee_arithmetic(
    inputs: Arrays, window: int, feature_map: str, use_threads: Any = ra.set_num_threads
) -> None:
    """The same elements infinite and NaN as by the definition in float64, forward and in steps."""
    options: dict[str, Any] = {"window": window, "feature_map": feature_map}
    far = reference_residual_linear_attention(**inputs, **options)[0]
    both = reference_rattention(**inputs, **options)[0]
    assert not np.isfinite(far).all()
    for threads in (1, 2, 5):
        use_threads(threads)
        got = ra.residual_linear_attention(**inputs, **options)
        np.testing.assert_array_equal(kinds(got), kinds(far))
        finite = np.isfinite(far)
        np.testing.assert_allclose(got[finite], far[finite], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(kinds(ra.rattention(**inputs, **options)), kinds(both))
    for cuts in ([], [100], [40, 41, 90], list(range(1, inputs["key"].shape[2]))):
        np.testing.assert_array_equal(kinds(decoded(inputs, cuts, window, feature_map)), kinds(both))


@pytest.mark.row("S5")
@feature_maps
@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("poison", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dim", [4, 16, 17])
def test_infinity_whatever_the_chunk(
    name: str, poison: float, dim: int, feature_map: str, use_threads: Any
) -> None:
    inputs = draw(LENGTH, heads=2, kv_heads=1, dim=dim, value_dim=5)
    inputs[name][0, 0, 60, 1] = poison
    inputs[name][0, 0, 3, 0] = np.inf
    assert_as_in_ieee_arithmetic(inputs, 5, feature_map, use_threads)


@pytest.mark.row("S5")
def test_an_infinite_value_in_every_later_row() -> None:
    """Whatever is padded: infinity times a feature that is not there was NaN from the next chunk on."""
    inputs = draw(130, heads=1, dim=4)
    inputs["value"][0, 0, 3, 1] = np.inf
    rows = ra.residual_linear_attention(**inputs, window=0)
    assert (rows[0, 0, 4:, 1] == np.inf).all()
    assert np.isfinite(rows[0, 0, :, [0, 2, 3]]).all()


@pytest.mark.row("B2")
@every_isa
def test_infinity_on_every_instruction_set(isa: str) -> None:
    printed = run_python(
        """
        import numpy as np
        import tests.test_linear_special as t
        for feature_map in ("softmax", "relu"):
            for name in ("key", "value"):
                inputs = t.draw(110, heads=2, kv_heads=1, dim=6, value_dim=5)
                inputs[name][0, 0, 20, 1] = np.inf
                t.assert_as_in_ieee_arithmetic(inputs, 5, feature_map)
        print("done")
        """,
        RATTENTION_MAX_ISA=isa,
    )
    assert printed.split() == ["done"]


@pytest.mark.row("N13")
@pytest.mark.parametrize("i", [0, 5, 100, 700])
@pytest.mark.parametrize("window", [-1, 500])
def test_an_infinite_query_on_any_number_of_threads(i: int, window: int, use_threads: Any) -> None:
    """A state that is still zero is not multiplied by infinity, whether one thread or several come to it."""
    inputs = {name: np.abs(array) for name, array in draw(800, heads=1, dim=16).items()}
    inputs["query"][0, 0, i, 3] = np.inf
    rows = []
    for threads in (1, 2, 3, 8):
        use_threads(threads)
        rows.append(ra.residual_linear_attention(**inputs, window=window, feature_map="relu"))
        np.testing.assert_array_equal(rows[-1], rows[0])
    first = {name: array[:, :, : i + 1] for name, array in inputs.items()}
    law = reference_residual_linear_attention(**first, window=window, feature_map="relu")[0]
    np.testing.assert_array_equal(kinds(rows[0][:, :, : i + 1]), kinds(law))


@pytest.mark.row("N17")
@feature_maps
@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30, 0.5])
@pytest.mark.parametrize("i", [31, 47, 48, 63])
def test_gradients_of_keys_that_a_row_does_not_see(i: int, poison: float, feature_map: str) -> None:
    """Not one of their bits changes with that row's query; nor those of rows with a key they do not see."""
    inputs = draw(96, heads=1, dim=8, value_dim=5)
    grad = draw(96, heads=1, dim=5, seed=4)["query"]
    options: dict[str, Any] = {"window": 20, "feature_map": feature_map}
    clean = residual_linear_attention_backward(grad, **inputs, **options)
    for name in ("query", "key"):
        poisoned = inputs | {name: inputs[name].copy()}
        poisoned[name][0, 0, i, 1] = poison
        got = residual_linear_attention_backward(grad, **poisoned, **options)
        unseen = slice(i - 20, None) if name == "query" else slice(0, i)
        for changed in ("key", "value") if name == "query" else ("query",):
            rows, wanted = got[changed][0, 0, unseen], clean[changed][0, 0, unseen]
            np.testing.assert_array_equal(rows.view(np.uint32), wanted.view(np.uint32), err_msg=changed)
    assert (got["query"] != clean["query"]).any()


PEAK = """
import numpy as np
import rattention as ra
from rattention.mechanisms.rattention import rattention_backward
from rattention.mechanisms.residual_linear import residual_linear_attention_backward
from tests.processes import peak_beyond
ra.set_num_threads(2)
x = np.ones((1, {heads}, 2048, 64), np.float32)
ids = (np.arange(2048) // {length})[None]
options = {{"window": 0, "segment_ids": ids}}
print(peak_beyond(lambda: {call}, 0) / x.nbytes)
"""
CALLS = {
    "forward": "ra.residual_linear_attention(x, x, x, **options)",
    "backward": "residual_linear_attention_backward(x, x, x, x, **options)",
    "rattention": "ra.rattention(x, x, x, **options)",
    "rattention backward": "rattention_backward(x, x, x, x, **options)",
}


@pytest.mark.row("Z5")
@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("case", CALLS)
def test_short_segments_take_no_more_memory_than_one_sequence(case: str, heads: int) -> None:
    """Sequences that start from zero need no saved state; results and gradients are counted in."""
    peaks = [
        float(run_python(PEAK.format(heads=heads, length=length, call=CALLS[case]))) for length in (2048, 2)
    ]
    assert peaks[1] <= peaks[0] + 16 / heads  # scratch of threads that happen to work comes and goes


@pytest.mark.row("H1")
@pytest.mark.parametrize("tokens", [0, 1, 60])
def test_values_without_elements(tokens: int) -> None:
    """Empty rows from every function, and states and gradients to go with them."""
    inputs = draw(tokens, heads=4, kv_heads=2, dim=6)
    inputs["value"] = inputs["value"][..., :0]
    empty = (1, 4, tokens, 0)
    for call, backward in (
        (ra.residual_linear_attention, residual_linear_attention_backward),
        (ra.rattention, rattention_backward),
    ):
        output, state = call(**inputs, window=3, return_state=True)
        assert output.shape == empty
        assert state.shape == (1, 2, 12, 0)
        gradients = backward(output, **inputs, window=3)
        assert all(gradients[name].shape == inputs[name].shape for name in inputs)
        assert not gradients["query"].any()
    for law in (reference_residual_linear_attention, reference_rattention):
        assert law(**inputs, window=3)[0].shape == empty
    cache = ra.RAttentionCache(1, 2, 6, 3, value_dim=0, rope_theta=1e4)
    assert ra.rattention_step(**inputs, cache=cache).shape == empty
    assert ra.RAttentionCache.from_bytes(cache.to_bytes()).lengths.tolist() == [tokens]
    assert ra.attention(**inputs).shape == empty
