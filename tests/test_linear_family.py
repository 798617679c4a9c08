"""Faults, odd inputs and odd shapes: residual and gated linear attention and RAttention alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention.mechanisms.gated_linear import (
    gated_linear_attention_backward,
    reference_gated_linear_attention,
)
from rattention.mechanisms.rattention import rattention_backward, reference_rattention
from rattention.mechanisms.residual_linear import (
    reference_residual_linear_attention,
    residual_linear_attention_backward,
)

from tests.linear_family import Arrays, draw, draw_gated, masks_of, relative_error


class Mechanism(NamedTuple):
    forward: Callable[..., Any]
    backward: Callable[..., Arrays]
    reference: Callable[..., tuple[NDArray[Any], NDArray[Any]]]
    draw: Callable[..., Arrays] = draw


LINEAR = Mechanism(
    ra.residual_linear_attention,
    residual_linear_attention_backward,
    reference_residual_linear_attention,
)
GATED = Mechanism(
    partial(ra.gated_linear_attention, feature_map="softmax"),
    partial(gated_linear_attention_backward, feature_map="softmax"),
    partial(reference_gated_linear_attention, feature_map="softmax"),
    draw_gated,
)
RATTENTION = Mechanism(ra.rattention, rattention_backward, reference_rattention)

mechanisms = pytest.mark.parametrize(
    "mechanism", [LINEAR, GATED, RATTENTION], ids=["residual_linear", "gated_linear", "rattention"]
)

POSITIONS = (0, 3, 47, 48, 100, 298, 299)
POISONS = (np.nan, np.inf, -np.inf)


def rows_with_nan(output: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isnan(output).any(axis=-1)


def rows_that_see(mechanism: Mechanism, j: int, window: int, length: int = 300) -> NDArray[np.bool_]:
    return np.arange(length) >= (j if mechanism is RATTENTION else j + window + 1)


@pytest.mark.row("S3")
@mechanisms
@pytest.mark.parametrize("name", ["key", "value"])
@pytest.mark.parametrize("j", POSITIONS)
@pytest.mark.parametrize("window", [-1, 0, 20])
def test_nan_reaches_the_rows_that_see_it(mechanism: Mechanism, name: str, j: int, window: int) -> None:
    inputs = mechanism.draw(300)
    clean = mechanism.forward(**inputs, window=window)
    inputs[name][0, 1, j, 2] = np.nan
    output = mechanism.forward(**inputs, window=window)
    sees = rows_that_see(mechanism, j, window)
    np.testing.assert_array_equal(rows_with_nan(output)[0, 1], sees)
    np.testing.assert_array_equal(output[0, 1, ~sees], clean[0, 1, ~sees])
    np.testing.assert_array_equal(output[0, 0], clean[0, 0])


@pytest.mark.row("S2")
@mechanisms
@pytest.mark.parametrize("i", POSITIONS)
def test_nan_in_a_query_stays_in_its_row(mechanism: Mechanism, i: int) -> None:
    inputs = mechanism.draw(300)
    clean = mechanism.forward(**inputs, window=2)
    inputs["query"][0, 1, i, 2] = np.nan
    output = mechanism.forward(**inputs, window=2)
    expected = np.zeros((1, 2, 300), bool)
    expected[0, 1, i] = mechanism is RATTENTION or i > 2  # a row that sees nothing is 0
    np.testing.assert_array_equal(rows_with_nan(output), expected)
    np.testing.assert_array_equal(output[~expected], clean[~expected])


@pytest.mark.row("S4")
@mechanisms
@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("masks", ["padding", "both"])
def test_hidden_poison_goes_nowhere(mechanism: Mechanism, masks: str, poison: float) -> None:
    inputs = mechanism.draw(300, heads=4, kv_heads=2)
    options = masks_of(300)[masks] | {"window": 9}
    grad = mechanism.draw(300, heads=4, seed=3)["query"]
    clean = mechanism.forward(**inputs, **options, return_state=True)
    clean_gradients = mechanism.backward(grad, **inputs, **options)
    hidden = ~options["key_mask"][0]
    for name in {*inputs} - {"query"}:
        inputs[name][:, :, hidden] = poison
    for got, expected in zip(mechanism.forward(**inputs, **options, return_state=True), clean, strict=True):
        np.testing.assert_array_equal(got, expected)
    for name, gradient in mechanism.backward(grad, **inputs, **options).items():
        np.testing.assert_allclose(gradient, clean_gradients[name], rtol=1e-4, atol=1e-5)


@pytest.mark.row("S4")
@mechanisms
def test_gradients_of_other_tokens_stay_clean(mechanism: Mechanism) -> None:
    """NaN in one row's gradient reaches its own query and the keys it sees, and no other token."""
    inputs = mechanism.draw(300)
    grad = mechanism.draw(300, seed=3)["query"]
    clean = mechanism.backward(grad, **inputs, window=9)
    grad[0, 1, 150] = np.nan
    got = mechanism.backward(grad, **inputs, window=9)
    last = 150 if mechanism is RATTENTION else 140
    for name, seen in (
        ("query", slice(150, 151)),
        ("key", slice(0, last + 1)),
        ("value", slice(0, last + 1)),
    ):
        touched = np.zeros(300, bool)
        touched[seen] = True
        np.testing.assert_array_equal(rows_with_nan(got[name])[0, 1], touched, err_msg=name)
        np.testing.assert_allclose(got[name][0, 1, ~touched], clean[name][0, 1, ~touched], atol=1e-5)
        np.testing.assert_array_equal(got[name][0, 0], clean[name][0, 0])


@pytest.mark.row("S1")
@mechanisms
def test_everything_hidden(mechanism: Mechanism) -> None:
    inputs = mechanism.draw(200)
    inputs["query"][:, :, 5] = np.nan
    options: dict[str, Any] = {"window": 3, "key_mask": np.zeros((1, 200), bool)}
    output, state = mechanism.forward(**inputs, **options, return_state=True)
    assert not output.any()
    assert not state.any()
    for name, gradient in mechanism.backward(np.ones_like(output), **inputs, **options).items():
        assert not gradient.any(), name


@pytest.mark.row("S5")
@mechanisms
@pytest.mark.parametrize("poison", [np.inf, -np.inf])
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_infinity_reaches_no_row_that_does_not_see_it(mechanism: Mechanism, name: str, poison: float) -> None:
    inputs = mechanism.draw(300)
    clean = mechanism.forward(**inputs, window=4)
    inputs[name][0, 1, 100, 2] = poison
    output = mechanism.forward(**inputs, window=4)
    sees = np.arange(300) == 100 if name == "query" else rows_that_see(mechanism, 100, 4)
    np.testing.assert_array_equal(output[0, 1, ~sees], clean[0, 1, ~sees])
    law = mechanism.reference(**inputs, window=4)[0]
    assert not np.isfinite(law[0, 1, sees]).all(axis=-1).all()
    # A score of -inf weighs 0, so that a row that sees an infinite key may well be finite.
    np.testing.assert_array_equal(np.isfinite(output).all(axis=-1), np.isfinite(law).all(axis=-1))


@pytest.mark.row("N12")
@mechanisms
def test_denormal_inputs(mechanism: Mechanism) -> None:
    inputs = {name: array * np.float32(1e-40) for name, array in mechanism.draw(100).items()}
    assert np.isfinite(mechanism.forward(**inputs, window=4)).all()


@pytest.mark.row("H1")
@mechanisms
@pytest.mark.parametrize(("batch", "heads", "length"), [(0, 2, 5), (1, 0, 5), (1, 2, 0)])
def test_nothing_in_nothing_out(mechanism: Mechanism, batch: int, heads: int, length: int) -> None:
    inputs = mechanism.draw(length, batch=batch, heads=heads)
    output, state = mechanism.forward(**inputs, window=3, return_state=True)
    assert output.shape == (batch, heads, length, 8)
    assert state.shape == (batch, heads, 16, 8)
    assert not state.any()
    gradients = mechanism.backward(output, **inputs, window=3)
    assert gradients["query"].shape == inputs["query"].shape


@pytest.mark.row("H1")
@mechanisms
def test_without_tokens_the_state_passes_through(mechanism: Mechanism) -> None:
    inputs = mechanism.draw(0, heads=4, kv_heads=2, state_heads=4)
    output, state = mechanism.forward(**inputs, window=3, return_state=True)
    np.testing.assert_array_equal(state, inputs["initial_state"])
    gradients = mechanism.backward(output, **inputs, window=3, grad_state=state)
    np.testing.assert_array_equal(gradients["initial_state"], state)


@pytest.mark.row("H2")
@mechanisms
@pytest.mark.parametrize("window", [-1, 0, 3])
def test_one_token(mechanism: Mechanism, window: int) -> None:
    inputs = mechanism.draw(1, heads=4, kv_heads=2)
    got = mechanism.forward(**inputs, window=window)
    assert relative_error(got, mechanism.reference(**inputs, window=window)[0]) <= 1e-6


@pytest.mark.row("H5")
@mechanisms
@pytest.mark.parametrize("value_dim", [1, 3, 40])
def test_value_dim_of_its_own(mechanism: Mechanism, value_dim: int) -> None:
    inputs = mechanism.draw(120, value_dim=value_dim)
    got = mechanism.forward(**inputs, window=5)
    assert relative_error(got, mechanism.reference(**inputs, window=5)[0]) <= 1e-5


@pytest.mark.row("M1")
@mechanisms
@pytest.mark.parametrize(
    "layout",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a[:, :, ::-1].copy()[:, :, ::-1],
        lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(a.shape),
    ],
    ids=["Fortran", "length first", "gaps", "reversed", "misaligned"],
)
def test_any_layout(mechanism: Mechanism, layout: Any) -> None:
    """The same bits, forward and backward; inputs are left alone."""
    inputs = mechanism.draw(200, heads=4, kv_heads=2, dim=16)
    grad = mechanism.draw(200, heads=4, dim=16, seed=2)["query"]
    other = {name: layout(array) for name, array in inputs.items()}
    np.testing.assert_array_equal(mechanism.forward(**other, window=9), mechanism.forward(**inputs, window=9))
    got = mechanism.backward(layout(grad), **other, window=9)
    for name, expected in mechanism.backward(grad, **inputs, window=9).items():
        np.testing.assert_array_equal(got[name], expected)
    for name, array in inputs.items():
        np.testing.assert_array_equal(other[name], array)


def zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


Refused = list[tuple[str, Any, str]]

BAD_VALUES: Refused = [
    ("window", -2, "window must be >= -1, got -2"),
    ("feature_map", "elu", "feature_map must be one of softmax, relu, got 'elu'"),
    ("initial_state", zeros(2, 16, 8), "initial_state must have 4 dimensions"),
    ("initial_state", zeros(1, 3, 16, 8), r"initial_state must have shape \(1, 2, 16, 8\)"),
    ("initial_state", zeros(1, 4, 8, 8), r"initial_state must have shape \(1, 4, 16, 8\)"),
    ("key_mask", np.ones((1, 61), bool), "key_mask must have shape"),
    ("segment_ids", np.zeros((2, 62), int), "segment_ids must have shape"),
    ("value", zeros(2, 62, 8), "value must have 4 dimensions"),
    ("query", zeros(1, 4, 60, 8), "key has length 62, query has 60"),
    ("value", zeros(1, 2, 60, 8), "value has length 60, key has 62"),
    ("query", zeros(1, 4, 62, 9), "key has head_dim 8, query has 9"),
    ("query", zeros(1, 3, 62, 8), "key has 2 heads, query has 3"),
]
BAD_TYPES: Refused = [
    ("window", 3.0, "window must be an integer"),
    ("window", True, "window must be an integer"),
    ("window", None, "window must be an integer"),
    ("feature_map", 3, "feature_map must be a string"),
    ("initial_state", np.zeros((1, 2, 16, 8)), "initial_state has dtype float64"),
    ("key_mask", np.ones((1, 62), int), "key_mask must be a boolean"),
    ("segment_ids", zeros(1, 62), "segment_ids must be an integer"),
    ("query", np.zeros((1, 4, 62, 8)), "query has dtype float64"),
    ("query", np.zeros((1, 4, 62, 8), np.float16), "same dtype"),
]
BAD_BRANCH_VALUES: Refused = [
    ("eps", 0, "eps must be a positive"),
    ("eps", -1e-8, "eps must be a positive"),
    ("eps", np.nan, "eps must be finite"),
    ("rope_theta", 0, "rope_theta must be > 0"),
    ("rope_theta", -1.0, "rope_theta must be > 0"),
    ("rope_theta", np.nan, "rope_theta must be finite"),
    ("rope_theta", np.inf, "rope_theta must be finite"),
    ("scale", np.nan, "scale must be finite"),
    ("local_norm_weight", np.ones(8, np.float32), "local_norm_weight must have 2 dimensions"),
    ("linear_norm_weight", zeros(2, 8), r"linear_norm_weight must have shape .*\(4, 8\)"),
]
BAD_BRANCH_TYPES: Refused = [
    ("eps", "1", "eps must be a number"),
    ("scale", True, "scale must be a number"),
    ("local_norm_weight", np.ones((4, 8)), "local_norm_weight has dtype float64"),
]


def cases(values: Refused, types: Refused) -> Any:
    listed = [(*case, ValueError) for case in values] + [(*case, TypeError) for case in types]
    return pytest.mark.parametrize(("name", "bad", "message", "error"), listed)


@pytest.mark.row("H11")
@mechanisms
@cases(BAD_VALUES, BAD_TYPES)
def test_what_is_refused(
    mechanism: Mechanism, name: str, bad: Any, message: str, error: type[Exception]
) -> None:
    arguments = mechanism.draw(62, heads=4, kv_heads=2) | {"window": 3, name: bad}
    with pytest.raises(error, match=message):
        mechanism.forward(**arguments)
    with pytest.raises(error, match=message):
        mechanism.backward(zeros(1, 4, 62, 8), **arguments)


@pytest.mark.row("S6")
@cases(BAD_BRANCH_VALUES, BAD_BRANCH_TYPES)
def test_what_rattention_refuses(name: str, bad: Any, message: str, error: type[Exception]) -> None:
    arguments = draw(62, heads=4, kv_heads=2) | {"window": 3, name: bad}
    with pytest.raises(error, match=message):
        ra.rattention(**arguments)
    with pytest.raises(error, match=message):
        rattention_backward(zeros(1, 4, 62, 8), **arguments)


@pytest.mark.row("S6")
def test_rotary_embedding_needs_pairs() -> None:
    with pytest.raises(ValueError, match="head_dim must be even with a rotary embedding, got 7"):
        ra.rattention(**draw(10, dim=7), window=3, rope_theta=1e4)


@pytest.mark.row("H6")
@mechanisms
def test_gradients_must_fit(mechanism: Mechanism) -> None:
    inputs: Arrays = mechanism.draw(20)
    with pytest.raises(ValueError, match=r"grad_output must have shape \(1, 2, 20, 8\)"):
        mechanism.backward(np.zeros((1, 2, 20, 9), np.float32), **inputs, window=3)
    with pytest.raises(ValueError, match=r"grad_state must have shape \(1, 2, 16, 8\)"):
        mechanism.backward(
            inputs["query"], **inputs, window=3, grad_state=np.zeros((1, 1, 16, 8), np.float32)
        )
