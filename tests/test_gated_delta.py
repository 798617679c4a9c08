"""The gated delta rule against its definition: sizes, masks, gates, special values, threads, decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rattention as ra
from rattention.mechanisms import gated_delta_rule_backward, reference_gated_delta_rule

from tests.gated_delta import assert_follows_the_law, assert_gradients, draw, grads_like
from tests.instruction_sets import every_isa
from tests.linear_family import masks_of, relative_error, same_bits_for_any_threads
from tests.processes import run_python

gates = pytest.mark.parametrize("channels", [False, True], ids=["per head", "per channel"])
masks = pytest.mark.parametrize("masks", ["none", "padding", "segments", "both"])
LENGTHS = (1, 2, 5, 6, 7, 15, 16, 17, 47, 48, 49, 54, 95, 96, 97, 145)
POSITIONS = (0, 5, 6, 47, 48, 101)


@pytest.mark.row("N1")
@gates
@masks
@pytest.mark.parametrize("length", LENGTHS)
def test_forward(length: int, masks: str, channels: bool) -> None:
    for state, dim in ((False, 8), (True, 5)):
        inputs = draw(length, batch=2, heads=4, kv_heads=2, dim=dim, channels=channels, state=state)
        assert_follows_the_law(inputs, **masks_of(length, 2)[masks])


@pytest.mark.row("N3")
@gates
@masks
@pytest.mark.parametrize("length", [1, 6, 48, 49, 103])
def test_gradients(length: int, masks: str, channels: bool) -> None:
    inputs = draw(length, heads=4, kv_heads=2, dim=5, value_dim=7, channels=channels, state=True)
    assert_gradients(inputs, **masks_of(length)[masks])


@pytest.mark.row("H5")
@gates
@pytest.mark.parametrize(("dim", "value_dim"), [(1, 1), (3, 40), (16, 15), (17, 16), (64, 33), (128, 64)])
def test_any_head_dim(dim: int, value_dim: int, channels: bool) -> None:
    inputs = draw(100, dim=dim, value_dim=value_dim, channels=channels, state=True)
    assert_follows_the_law(inputs)
    assert_gradients(inputs)


@pytest.mark.row("N5")
@gates
@pytest.mark.parametrize("strongest", [0.0, 1e-4, 0.1, 5.0, 50.0, np.inf])
def test_gates_of_any_strength(strongest: float, channels: bool) -> None:
    """From none at all to one that forgets everything, among gates that forget little."""
    inputs = draw(300, dim=16, channels=channels, strongest=min(strongest, 50.0), state=True)
    if strongest == np.inf:
        inputs["log_gate"] *= 0.01
        inputs["log_gate"][:, :, [3, 48, 100, 101]] = -np.inf
    assert_follows_the_law(inputs)
    output, state = grads_like(inputs)
    got = gated_delta_rule_backward(output, **inputs, normalize=True, grad_state=state)
    assert all(np.isfinite(gradient).all() for gradient in got.values())
    if strongest == np.inf:
        assert not got["log_gate"][:, :, [3, 48, 100, 101]].any()
    assert_gradients(inputs)


@pytest.mark.row("N5")
@gates
@pytest.mark.parametrize("gate", [-0.3, -0.49, -0.51, -8.0, -16.7, -18.0, -30.0])
def test_what_strong_gates_leave_has_all_its_digits(gate: float, channels: bool) -> None:
    """Nothing is written after the first tokens, so that rows and gradients are of what is left alone."""
    inputs = draw(150, dim=16, channels=channels, strongest=0.0, state=True)
    inputs["beta"][:, :, 1:] = 0
    inputs["log_gate"][:, :, 30] = gate
    inputs["log_gate"][:, :, 60:108] = gate / 48
    output, state = ra.gated_delta_rule(**inputs, normalize=True, return_state=True)
    exact = reference_gated_delta_rule(**inputs, normalize=True)
    for rows in (slice(0, 30), slice(30, 60), slice(108, 150)):
        assert relative_error(output[:, :, rows], exact[0][:, :, rows]) <= 2e-5
    assert relative_error(state, exact[1]) <= 2e-5
    grad = grads_like(inputs)[0]
    grad[:, :, :110] = 0
    got = gated_delta_rule_backward(grad, **inputs, normalize=True)
    for name in ("initial_state", "log_gate", "value"):
        part = slice(None) if name == "initial_state" else slice(0, 110)
        if name == "log_gate":  # a gate takes what passes it times its direction
            part = slice(0, 60)
        moved = got[name][:, :, part]
        direction = np.random.default_rng(4).standard_normal(moved.shape)
        step = 1e-4 if name == "log_gate" else 1.0  # linear in the others
        ends = []
        for sign in (1, -1):
            array = inputs[name].astype(np.float64)
            array[:, :, part] += sign * step * direction
            law = reference_gated_delta_rule(**inputs | {name: array}, normalize=True)[0]
            ends.append(float((law * grad).sum()))
        expected = (ends[0] - ends[1]) / (2 * step)
        along = float((moved * direction).sum())
        assert abs(along - expected) <= 5e-5 * float(np.abs(moved * direction).sum()), name


@pytest.mark.row("N5")
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20])
def test_scales_of_any_size(scale: float) -> None:
    inputs = draw(20, dim=8)
    grad = grads_like(inputs)[0]
    one = gated_delta_rule_backward(grad, **inputs, normalize=True, scale=1.0)["query"]
    got = gated_delta_rule_backward(grad, **inputs, normalize=True, scale=scale)["query"]
    np.testing.assert_allclose(got / np.float32(scale), one, rtol=1e-4, atol=1e-5)


@pytest.mark.row("S4")
@gates
def test_hidden_tokens_leave_any_state_as_it_is(channels: bool) -> None:
    inputs = draw(60, channels=channels, state=True)
    inputs["initial_state"][0, 0, 0, :3] = [np.inf, np.nan, -0.0]
    shown = {"key_mask": np.zeros((1, 60), bool)}
    state = ra.gated_delta_rule(**inputs, **shown, return_state=True).state
    np.testing.assert_array_equal(state.view(np.int32), inputs["initial_state"].view(np.int32))


@pytest.mark.row("N5")
def test_deltanet_without_normalisation_and_with_a_scale() -> None:
    inputs = draw(200, dim=16, strongest=0.0, state=True)
    inputs["key"] /= 5
    assert_follows_the_law(inputs, normalize=False, scale=0.7)
    assert_gradients(inputs, normalize=False, scale=-0.7)
    silent = ra.gated_delta_rule(**inputs, scale=0.0, return_state=True)
    assert not silent.output.any()
    gradients = gated_delta_rule_backward(np.ones_like(silent.output), **inputs, scale=0.0, normalize=True)
    assert not gradients["query"].any()


@pytest.mark.row("N9")
@gates
def test_a_long_sequence(channels: bool) -> None:
    """Errors do not grow with the length, even where next to nothing is forgotten."""
    inputs = draw(20_000, dim=8, channels=channels, strongest=1e-3)
    assert_follows_the_law(inputs)


@pytest.mark.row("M10")
@gates
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(dtype: str, channels: bool) -> None:
    """The arithmetic is that of float32: only inputs and outputs are rounded."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16 of its own")
    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    inputs = draw(100, channels=channels, dtype=kind)
    wide = {name: np.asarray(array, np.float32) for name, array in inputs.items()}
    got = ra.gated_delta_rule(**inputs, normalize=True)
    assert got.dtype == kind
    np.testing.assert_array_equal(got, ra.gated_delta_rule(**wide, normalize=True).astype(kind))


@pytest.mark.row("S4")
@gates
@pytest.mark.parametrize("j", POSITIONS)
@pytest.mark.parametrize("name", ["key", "value", "log_gate", "beta"])
def test_later_tokens_change_no_bit(name: str, j: int, channels: bool) -> None:
    inputs = draw(120, dim=16, channels=channels)
    clean = ra.gated_delta_rule(**inputs, normalize=True)
    inputs[name] = inputs[name].copy()
    inputs[name][0, 1, j] = {"log_gate": -np.inf, "beta": np.nan}.get(name, np.nan)
    output = ra.gated_delta_rule(**inputs, normalize=True)
    np.testing.assert_array_equal(output[0, 1, :j], clean[0, 1, :j])
    np.testing.assert_array_equal(output[0, 0], clean[0, 0])
    assert np.isnan(output[0, 1, j:]).any(axis=-1).all() or name == "log_gate"
    assert (output[0, 1, j:] != clean[0, 1, j:]).any() or (name, j) == ("log_gate", 0)


@pytest.mark.row("S2")
@gates
@pytest.mark.parametrize("i", POSITIONS)
def test_nan_in_a_query_stays_in_its_row(i: int, channels: bool) -> None:
    inputs = draw(120, channels=channels)
    clean = ra.gated_delta_rule(**inputs, normalize=True)
    inputs["query"][0, 1, i, 2] = np.nan
    output = ra.gated_delta_rule(**inputs, normalize=True)
    rows = np.zeros((1, 2, 120), bool)
    rows[0, 1, i] = True
    np.testing.assert_array_equal(np.isnan(output).any(axis=-1), rows)
    np.testing.assert_array_equal(output[~rows], clean[~rows])


@pytest.mark.row("S4")
@gates
@pytest.mark.parametrize("poison", [np.nan, np.inf, 3.0])
@pytest.mark.parametrize("masks", ["padding", "both"])
def test_hidden_tokens_change_no_bit(masks: str, poison: float, channels: bool) -> None:
    inputs = draw(200, heads=4, kv_heads=2, dim=16, channels=channels)
    options: dict[str, Any] = masks_of(200)[masks] | {"normalize": True}
    grads = grads_like(inputs)
    clean = ra.gated_delta_rule(**inputs, **options, return_state=True)
    clean_gradients = gated_delta_rule_backward(grads[0], **inputs, **options, grad_state=grads[1])
    hidden = ~options["key_mask"][0]
    for name in ("key", "value", "log_gate", "beta"):
        inputs[name][:, :, hidden] = poison
    for got, expected in zip(ra.gated_delta_rule(**inputs, **options, return_state=True), clean, strict=True):
        np.testing.assert_array_equal(got, expected)
    gradients = gated_delta_rule_backward(grads[0], **inputs, **options, grad_state=grads[1])
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, clean_gradients[name], err_msg=name)
        if name != "query":
            assert not gradient[:, :, hidden].any()


@pytest.mark.row("S4")
@gates
@pytest.mark.parametrize("i", POSITIONS)
def test_nan_in_the_gradient_of_a_row_reaches_what_it_sees(i: int, channels: bool) -> None:
    inputs = draw(120, dim=16, channels=channels)
    grad = grads_like(inputs)[0]
    clean = gated_delta_rule_backward(grad, **inputs, normalize=True)
    grad[0, 1, i] = np.nan
    got = gated_delta_rule_backward(grad, **inputs, normalize=True)
    for name, gradient in got.items():
        np.testing.assert_array_equal(gradient[0, 0], clean[name][0, 0], err_msg=name)
        np.testing.assert_array_equal(gradient[0, 1, i + 1 :], clean[name][0, 1, i + 1 :], err_msg=name)
        touched = np.isnan(gradient[0, 1, : i + 1]).reshape(i + 1, -1).any(axis=1)
        assert touched.all() if name not in ("query", "log_gate") else touched[-1] or i == 0, name


@pytest.mark.row("S1")
@gates
def test_everything_hidden(channels: bool) -> None:
    inputs = draw(100, channels=channels)
    inputs["query"][:, :, 5] = np.nan
    hidden = {"key_mask": np.zeros((1, 100), bool)}
    output, state = ra.gated_delta_rule(**inputs, **hidden, return_state=True)
    assert not output.any()
    assert not state.any()
    gradients = gated_delta_rule_backward(np.full_like(output, np.nan), **inputs, **hidden, normalize=True)
    for name, gradient in gradients.items():
        assert not gradient.any(), name


@pytest.mark.row("H1")
@gates
@pytest.mark.parametrize(("batch", "heads", "length"), [(0, 2, 5), (1, 0, 5), (1, 2, 0)])
def test_nothing_in_nothing_out(batch: int, heads: int, length: int, channels: bool) -> None:
    inputs = draw(length, batch=batch, heads=heads, channels=channels, state=True)
    for ids in (None, np.zeros((batch, length), int)):
        output, state = ra.gated_delta_rule(**inputs, segment_ids=ids, return_state=True)
        assert output.shape == (batch, heads, length, 8)
        np.testing.assert_array_equal(state, inputs["initial_state"]) if length == 0 else None
        gradients = gated_delta_rule_backward(output, **inputs, segment_ids=ids, grad_state=state)
        assert {name: g.shape for name, g in gradients.items()} == {n: a.shape for n, a in inputs.items()}
        if length == 0:
            np.testing.assert_array_equal(gradients["initial_state"], state)


@pytest.mark.row("M1")
@gates
def test_any_layout(channels: bool) -> None:
    inputs = draw(100, heads=4, kv_heads=2, dim=16, channels=channels, state=True)
    strange = {
        name: np.ascontiguousarray(array.swapaxes(1, 2)).swapaxes(1, 2) for name, array in inputs.items()
    }
    grads = grads_like(inputs)
    np.testing.assert_array_equal(ra.gated_delta_rule(**strange), ra.gated_delta_rule(**inputs))
    got = gated_delta_rule_backward(grads[0], **strange)
    for name, expected in gated_delta_rule_backward(grads[0], **inputs).items():
        np.testing.assert_array_equal(got[name], expected)


@pytest.mark.row("T1")
@gates
def test_threads_change_no_bit(channels: bool, use_threads: Any) -> None:
    inputs = draw(200, batch=3, heads=4, kv_heads=2, channels=channels, state=True)
    grads = grads_like(inputs)

    def call() -> list[Any]:
        made = ra.gated_delta_rule(**inputs, normalize=True, return_state=True)
        gradients = gated_delta_rule_backward(grads[0], **inputs, normalize=True, grad_state=grads[1])
        return [*made, *gradients.values()]

    same_bits_for_any_threads(use_threads, call)


@every_isa
def test_instruction_sets(isa: str) -> None:
    """Each set of kernels follows the law; a cap above what the processor has is the processor's own."""
    printed = run_python(
        """
        from tests.gated_delta import assert_follows_the_law, assert_gradients, draw
        for dim in (5, 16, 64):
            for channels in (False, True):
                for length in (1, 53, 98):
                    sizes = {"heads": 4, "kv_heads": 2, "dim": dim, "value_dim": 20}
                    inputs = draw(length, channels=channels, state=True, **sizes)
                    assert_follows_the_law(inputs)
                    assert_gradients(inputs)
        print("done")
        """,
        RATTENTION_MAX_ISA=isa,
    )
    assert printed == "done\n"


REFUSED = [
    ("log_gate", np.full((1, 2, 62), 1e-6, np.float32), "log_gate must be <= 0", ValueError),
    ("log_gate", np.full((1, 2, 62), np.nan, np.float32), "log_gate must be <= 0", ValueError),
    ("log_gate", np.zeros((1, 2), np.float32), "log_gate must have 3 or 4 dimensions", ValueError),
    ("log_gate", np.float32(-1), r"log_gate must have 3 or 4 dimensions, got 0 \(shape \(\)\)", ValueError),
    ("log_gate", np.zeros((1, 2, 61), np.float32), "log_gate must have shape", ValueError),
    ("log_gate", np.zeros((1, 2, 62, 7), np.float32), "log_gate must have shape", ValueError),
    ("log_gate", np.zeros((1, 2, 62)), "log_gate has dtype float64", TypeError),
    ("log_gate", None, "log_gate must be an array", TypeError),
    ("beta", np.zeros((1, 1, 62), np.float32), "beta must have shape", ValueError),
    ("beta", 0.5, "beta must be an array", TypeError),
    ("normalize", 1, "normalize must be True or False", TypeError),
    ("scale", np.nan, "scale must be finite", ValueError),
    ("scale", "1", "scale must be a number", TypeError),
    ("initial_state", np.zeros((1, 2, 16, 8), np.float32), "initial_state must have shape", ValueError),
    ("key_mask", np.ones((1, 61), bool), "key_mask must have shape", ValueError),
    ("segment_ids", np.zeros((2, 62), int), "segment_ids must have shape", ValueError),
    ("query", np.zeros((1, 2, 60, 8), np.float32), "key has length 62, query has 60", ValueError),
    ("query", np.zeros((1, 3, 62, 8), np.float32), "key has 2 heads, query has 3", ValueError),
    ("value", np.zeros((1, 2, 62, 8), np.float16), "same dtype", TypeError),
]


@pytest.mark.row("H11")
@pytest.mark.parametrize(("name", "bad", "message", "error"), REFUSED)
def test_what_is_refused(name: str, bad: Any, message: str, error: type[Exception]) -> None:
    arguments = draw() | {name: bad}
    with pytest.raises(error, match=message):
        ra.gated_delta_rule(**arguments)
    with pytest.raises(error, match=message):
        gated_delta_rule_backward(np.zeros((1, 2, 62, 8), np.float32), **arguments)


@pytest.mark.row("H11")
def test_gradients_of_other_shapes_are_refused() -> None:
    inputs = draw()
    with pytest.raises(ValueError, match="grad_output must have shape"):
        gated_delta_rule_backward(np.zeros((1, 2, 61, 8), np.float32), **inputs)
    with pytest.raises(ValueError, match="grad_state must have shape"):
        gated_delta_rule_backward(
            np.zeros((1, 2, 62, 8), np.float32), **inputs, grad_state=np.zeros((1, 2, 8, 9), np.float32)
        )
