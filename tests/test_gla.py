"""Gated linear attention with a gate per key channel (GLA), against its recurrence and its derivatives."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms.gated_linear import (
    gated_linear_attention_backward,
    reference_gated_linear_attention,
)
from rattention.mechanisms.rattention import rattention_backward

from tests import gated_linear
from tests.gated_delta import grads_like
from tests.gated_linear import assert_gradients, both
from tests.instruction_sets import every_isa
from tests.linear_family import (
    draw_gated,
    masks_of,
    relative_error,
    same_bits_for_any_threads,
)
from tests.mechanisms import DTYPES
from tests.processes import run_python

draw = partial(draw_gated, features=1, channels=True)
masks = pytest.mark.parametrize("masks", masks_of(4))
decays = pytest.mark.parametrize("decay", [0.0, 1e-4, 0.1, 3.0, 50.0, 700.0])
assert_follows_the_law = partial(gated_linear.assert_follows_the_law, tolerance=5e-6)
POSITIONS = (0, 5, 6, 47, 48, 101)


@pytest.mark.row("N1")
@masks
@pytest.mark.parametrize("state_heads", [None, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 16, 47, 48, 49, 54, 95, 96, 97, 145])
def test_forward(length: int, state_heads: int | None, masks: str) -> None:
    inputs = draw(length, batch=2, heads=4, kv_heads=2, dim=5, value_dim=7, state_heads=state_heads)
    assert_follows_the_law(inputs, **masks_of(length, 2)[masks])


@pytest.mark.row("N3")
@masks
@pytest.mark.parametrize("state_heads", [None, 2, 4])
@pytest.mark.parametrize("length", [1, 6, 48, 49, 103])
def test_gradients(length: int, state_heads: int | None, masks: str) -> None:
    """Of gates and states that query heads share, too."""
    inputs = draw(length, heads=4, kv_heads=2, dim=5, value_dim=7, state_heads=state_heads)
    assert_gradients(inputs, scale=0.8, **masks_of(length)[masks])


@pytest.mark.row("S5")
@every_isa
def test_infinity_in_the_state_stays(isa: str) -> None:
    """However slowly the state decays, and wherever a sequence is cut."""
    code = """
        import numpy as np
        import rattention as ra

        ones = np.ones((1, 1, 200, 1), np.float32)
        value = ones.copy()
        value[:, :, 5] = np.inf
        for gate in (-1e-4, -0.1, -3.0):
            inputs = [ones, ones, value, np.full_like(ones, gate)]
            for cut in (1, 6, 48, 103, 200):
                first, state = ra.gated_linear_attention(*(x[:, :, :cut] for x in inputs), return_state=True)
                rest = ra.gated_linear_attention(*(x[:, :, cut:] for x in inputs), initial_state=state)
                output = np.concatenate([first, rest], axis=2)
                assert np.isfinite(output[:, :, :5]).all(), (gate, cut)
                assert np.isposinf(output[:, :, 5:]).all(), (gate, cut)
    """
    run_python(code, RATTENTION_MAX_ISA=isa)


@pytest.mark.row("H5")
@pytest.mark.parametrize(("dim", "value_dim"), [(1, 1), (3, 40), (16, 15), (17, 16), (64, 33), (128, 64)])
def test_any_head_dim(dim: int, value_dim: int) -> None:
    inputs = draw(100, dim=dim, value_dim=value_dim, state_heads=2)
    assert_follows_the_law(inputs)
    assert_gradients(inputs)


@pytest.mark.row("N4")
@decays
def test_gates_of_any_strength(decay: float) -> None:
    inputs = draw(300, dim=16, decay=decay, state_heads=2)
    assert_follows_the_law(inputs)
    if decay < 100:  # differences of the law have no digits beyond
        assert_gradients(inputs)


@pytest.mark.row("N4")
def test_equal_gates_are_those_of_a_head() -> None:
    """The same as with a gate per head, by other kernels."""
    inputs = draw_gated(300, heads=4, kv_heads=2, state_heads=4, features=1)
    expected = both(inputs)
    inputs["log_gate"] = np.repeat(inputs["log_gate"][..., None], 8, axis=-1)
    for got, right in zip(both(inputs), expected, strict=True):
        assert relative_error(got, right.astype(np.float64)) <= 1e-6


@pytest.mark.row("S5")
@pytest.mark.parametrize("forgets", [0.02, 0.3, 1.0])
def test_a_gate_of_zero_forgets_its_channel(forgets: float) -> None:
    """Its own gradient is 0."""
    inputs = draw(200, forgets=forgets, state_heads=2)
    assert_follows_the_law(inputs)
    grads = grads_like(inputs)
    got = gated_linear_attention_backward(grads[0], **inputs, grad_state=grads[1])
    assert all(np.isfinite(gradient).all() for gradient in got.values())
    assert not got["log_gate"][np.isneginf(inputs["log_gate"])].any()


@pytest.mark.row("N4")
@pytest.mark.parametrize("piece", [1, 7, 48, 128, 201])
@pytest.mark.parametrize("state_heads", [2, 4])
def test_split_and_resume(state_heads: int, piece: int) -> None:
    inputs = draw(200, heads=4, kv_heads=2, state_heads=state_heads, decay=0.05)
    whole, whole_state = both(inputs)
    state, rows = inputs.pop("initial_state"), []
    for first in range(0, 200, piece):
        part = {name: a[:, :, first : first + piece] for name, a in inputs.items()}
        output, state = both(part, initial_state=state)
        rows.append(output)
    assert relative_error(np.concatenate(rows, axis=2), whole.astype(np.float64)) <= 1e-6
    assert relative_error(state, whole_state.astype(np.float64)) <= 1e-6


@pytest.mark.row("H8")
@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("state_heads", [None, 6])
def test_grouped_heads(kv_heads: int, state_heads: int | None) -> None:
    """As if keys, values and gates were repeated, to the bit."""
    inputs = draw(130, heads=6, kv_heads=kv_heads, state_heads=state_heads)
    output, state = both(inputs)
    assert state.shape == (1, state_heads or kv_heads, 8, 8)
    others = {n: np.repeat(inputs[n], 6 // kv_heads, axis=1) for n in ("key", "value", "log_gate")}
    expected, expected_state = both(inputs | others)
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(state, expected_state[:, :: 6 // state.shape[1]])


@pytest.mark.row("N2")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("gates", ["float32", "bfloat16", "float16"])
def test_half_precision(dtype: str, gates: str) -> None:
    """Only the output is rounded."""
    inputs = draw(200, heads=4, kv_heads=2, dtype=dtype)
    inputs["log_gate"] = inputs["log_gate"].astype(DTYPES[gates])
    output, state = both(inputs)
    expected, expected_state = both({name: array.astype(np.float32) for name, array in inputs.items()})
    assert output.dtype == DTYPES[dtype]
    np.testing.assert_array_equal(output, expected.astype(DTYPES[dtype]))
    np.testing.assert_array_equal(state, expected_state)


@pytest.mark.row("N14")
@pytest.mark.parametrize("j", POSITIONS)
@pytest.mark.parametrize("name", ["key", "value", "log_gate"])
def test_later_tokens_change_no_bit(name: str, j: int) -> None:
    inputs = draw(120, dim=16)
    clean = ra.gated_linear_attention(**inputs)
    inputs[name][0, 1, j] = -np.inf if name == "log_gate" else np.nan
    output = ra.gated_linear_attention(**inputs)
    np.testing.assert_array_equal(output[0, 1, :j], clean[0, 1, :j])
    np.testing.assert_array_equal(output[0, 0], clean[0, 0])
    assert name == "log_gate" or np.isnan(output[0, 1, j:]).any(axis=-1).all()
    assert (output[0, 1, j:] != clean[0, 1, j:]).any() or (name, j) == ("log_gate", 0)


@pytest.mark.row("S4")
@pytest.mark.parametrize("poison", [np.nan, np.inf, 3.0])
@pytest.mark.parametrize("masks", ["padding", "both"])
def test_hidden_tokens_change_no_bit(masks: str, poison: float) -> None:
    inputs = draw(200, heads=4, kv_heads=2, dim=16)
    options = masks_of(200)[masks]
    grad = grads_like(inputs)[0]
    clean = both(inputs, **options), gated_linear_attention_backward(grad, **inputs, **options)
    hidden = ~options["key_mask"][0]
    for name in ("key", "value", "log_gate"):
        inputs[name][:, :, hidden] = poison
    for got, expected in zip(both(inputs, **options), clean[0], strict=True):
        np.testing.assert_array_equal(got, expected)
    for name, gradient in gated_linear_attention_backward(grad, **inputs, **options).items():
        np.testing.assert_array_equal(gradient, clean[1][name], err_msg=name)
        assert name == "query" or not gradient[:, :, hidden].any()


@pytest.mark.row("S4")
@pytest.mark.parametrize("j", POSITIONS)
@pytest.mark.parametrize("name", ["key", "value"])
def test_nan_reaches_no_gradient_that_does_not_see_it(name: str, j: int) -> None:
    """Rows before token j; and what a row's own gradient touches is no later token."""
    inputs = draw(120, dim=16)
    grad = grads_like(inputs)[0]
    clean = gated_linear_attention_backward(grad, **inputs)
    inputs[name][0, 1, j] = np.nan
    got = gated_linear_attention_backward(grad, **inputs)
    np.testing.assert_array_equal(got["query"][0, 1, :j], clean["query"][0, 1, :j])
    assert np.isnan(got["query"][0, 1, j:]).any(axis=-1).all()
    # A key and a value that others read are in no gradient of theirs.
    np.testing.assert_array_equal(np.isnan(got["value" if name == "value" else "key"]), False)
    for gradient, right in zip(got.values(), clean.values(), strict=True):
        np.testing.assert_array_equal(gradient[0, 0], right[0, 0])


@pytest.mark.row("S1")
def test_everything_hidden() -> None:
    inputs = draw(100)
    inputs["query"][:, :, 5] = np.nan
    hidden = {"key_mask": np.zeros((1, 100), bool)}
    output, state = both(inputs, **hidden)
    assert not output.any()
    assert not state.any()
    gradients = gated_linear_attention_backward(np.full_like(output, np.nan), **inputs, **hidden)
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.row("H1")
@pytest.mark.parametrize(("batch", "heads", "length"), [(0, 2, 5), (1, 0, 5), (1, 2, 0)])
def test_nothing_in_nothing_out(batch: int, heads: int, length: int) -> None:
    inputs = draw(length, batch=batch, heads=heads, state_heads=heads)
    output, state = both(inputs)
    assert output.shape == (batch, heads, length, 8)
    gradients = gated_linear_attention_backward(output, **inputs, grad_state=state)
    assert {name: g.shape for name, g in gradients.items()} == {n: a.shape for n, a in inputs.items()}
    if length == 0:
        np.testing.assert_array_equal(state, inputs["initial_state"])
        np.testing.assert_array_equal(gradients["initial_state"], state)


@pytest.mark.row("T1")
@pytest.mark.parametrize("state_heads", [None, 2, 4])
def test_threads_change_no_bit(state_heads: int | None, use_threads: Any) -> None:
    inputs = draw(200, batch=3, heads=4, kv_heads=2, state_heads=state_heads)
    grad = grads_like(inputs)[0]

    def call() -> list[Any]:
        return [*both(inputs), *gated_linear_attention_backward(grad, **inputs).values()]

    same_bits_for_any_threads(use_threads, call)


@pytest.mark.row("B2")
@every_isa
def test_instruction_sets(isa: str) -> None:
    printed = run_python(
        """
        import tests.test_gla as t
        for dim in (5, 16, 64):
            for length in (1, 53, 98):
                sizes = {"heads": 4, "kv_heads": 2, "dim": dim, "value_dim": 20, "state_heads": 4}
                inputs = t.draw(length, **sizes)
                t.assert_follows_the_law(inputs)
                t.assert_gradients(inputs)
        print("done")
        """,
        RATTENTION_MAX_ISA=isa,
    )
    assert printed == "done\n"


STEPS = {"one token": [*range(21)], "prompt": [0, 13, 14, 15, 16, 20]}


@pytest.mark.row("N5")
@pytest.mark.parametrize("channels", [False, True], ids=["per head", "per channel"])
@pytest.mark.parametrize("cache_heads", [2, 4])
@pytest.mark.parametrize("cuts", STEPS.values(), ids=STEPS)
def test_steps_are_the_whole(cuts: list[int], cache_heads: int, channels: bool) -> None:
    """Query heads may share a state, which goes on in place."""
    sizes: dict[str, Any] = {"batch": 2, "heads": 4, "kv_heads": 2, "dim": 16, "value_dim": 32}
    inputs = draw_gated(20, features=1, channels=channels, **sizes)
    shown = np.random.default_rng(1).random((2, 20)) < 0.8
    shown[:, 0] = True
    cache = ra.GatedDeltaCache(2, cache_heads, 16, value_dim=32)
    state, rows = cache.state, []
    for first, last in pairwise(cuts):
        part = {n: a[:, :, first:last] for n, a in inputs.items()}
        rows.append(ra.gated_linear_step(**part, cache=cache, key_mask=shown[:, first:last], scale=0.3))
    expected, expected_state = reference_gated_linear_attention(**inputs, key_mask=shown, scale=0.3)
    assert relative_error(np.concatenate(rows, axis=2), expected) <= 1e-5
    assert cache.length == 20
    assert cache.state is state
    assert relative_error(state, np.repeat(expected_state, cache_heads // 2, axis=1)) <= 1e-5


def test_what_a_step_refuses() -> None:
    inputs = draw(1, heads=4, kv_heads=2)
    cache = ra.GatedDeltaCache(1, 2, 8)
    with pytest.raises(TypeError, match="cache must be a GatedDeltaCache"):
        ra.gated_linear_step(**inputs, cache=None)
    for heads in (1, 3):
        with pytest.raises(ValueError, match=r"cache\.state must have shape \(1, 2, 8, 8\)"):
            ra.gated_linear_step(**inputs, cache=ra.GatedDeltaCache(1, heads, 8))
    with pytest.raises(ValueError, match="log_gate must be <= 0"):
        ra.gated_linear_step(**inputs | {"log_gate": 1 - inputs["log_gate"]}, cache=cache)
    with pytest.raises(ValueError, match=r"log_gate must have shape \(1, 2, 1, 8\)"):
        ra.gated_linear_step(**inputs | {"log_gate": inputs["query"] * 0}, cache=cache)
    assert cache.length == 0
    assert not cache.state.any()


REFUSED: list[tuple[str, Any, str, type[Exception]]] = [
    ("log_gate", np.full((1, 2, 62, 8), 1e-6, np.float32), "log_gate must be <= 0", ValueError),
    ("log_gate", np.full((1, 2, 62, 8), np.nan, np.float32), "992 of 992 are not", ValueError),
    (
        "log_gate",
        np.zeros((1, 4, 62, 8), np.float32),
        r"log_gate must have shape \(1, 2, 62, 8\)",
        ValueError,
    ),
    ("log_gate", np.zeros((1, 2, 62, 7), np.float32), "log_gate must have shape", ValueError),
    ("log_gate", np.zeros((1, 2, 62, 8)), "log_gate has dtype float64", TypeError),
    ("log_gate", np.zeros((1, 2), np.float32), "log_gate must have 3 or 4 dimensions", ValueError),
    ("window", 3, "a log_gate per channel .* takes window=-1", ValueError),
    ("feature_map", "relu", "takes window=-1 and feature_map=None, got window=-1", ValueError),
    ("initial_state", np.zeros((1, 2, 16, 8), np.float32), "initial_state must have shape", ValueError),
    ("initial_state", np.zeros((1, 3, 8, 8), np.float32), "initial_state must have shape", ValueError),
]


@pytest.mark.row("H11")
@pytest.mark.parametrize(("name", "bad", "message", "error"), REFUSED)
def test_what_is_refused(name: str, bad: Any, message: str, error: type[Exception]) -> None:
    arguments = draw(62, heads=4, kv_heads=2) | {name: bad}
    with pytest.raises(error, match=message):
        ra.gated_linear_attention(**arguments)
    with pytest.raises(error, match=message):
        gated_linear_attention_backward(arguments["query"], **arguments)


def test_rattention_has_gates_per_head_alone() -> None:
    inputs = draw(62)
    gate = inputs.pop("log_gate")
    message = "gate must have 3 dimensions, got 4 .*; gated_linear_attention alone takes a gate per channel"
    with pytest.raises(ValueError, match=message):
        ra.rattention(**inputs, window=3, gate=gate)
    with pytest.raises(ValueError, match=message):
        rattention_backward(inputs["query"], **inputs, window=3, gate=gate)
