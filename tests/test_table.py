"""`ra.MECHANISMS`: what every row says of its functions is true, and they compute what the reference says."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rattention as ra
from numpy.typing import NDArray
from rattention import mechanisms
from rattention.mechanisms.options import (
    GatedDeltaOptions,
    GatedLinearOptions,
    GravityOptions,
    LinearOptions,
    RAttentionOptions,
    SoftmaxOptions,
)
from rattention.mechanisms.row import Mechanism, Sizes

from tests.variants import SOFTMAX_FAMILY, TABLE

by_mechanism = pytest.mark.parametrize("mechanism", TABLE, ids=lambda m: m.name)

SIZES = Sizes(batch=2, heads=4, length=70, head_dim=6, value_dim=5, kv_heads=2)
RESULTS = {"return_lse", "metrics", "return_state"}
"""Arguments that only say what is returned."""
OPTIONS = {
    ra.attention: SoftmaxOptions,
    ra.gravitational_attention: GravityOptions,
    ra.residual_linear_attention: LinearOptions,
    ra.gated_linear_attention: GatedLinearOptions,
    ra.gated_delta_rule: GatedDeltaOptions,
    ra.rattention: RAttentionOptions,
}
"""What overloads and the other functions of a row take as ``**options``."""


MAPS = ("metrics", "rows", "map", "segments", "top_keys", "distances")
"""What the softmax family has for its maps."""


def draw(mechanism: Mechanism, sizes: Sizes = SIZES) -> dict[str, Any]:
    """All its differentiable arguments, float32, and its options."""
    rng = np.random.default_rng(5)
    inputs = dict(mechanism.options)
    for argument in mechanism.functions.arguments:
        if argument.name not in mechanism.parameters:
            continue
        shape = [getattr(sizes, name) for name in argument.shape] if argument.shape else [sizes.heads]
        numbers = rng.standard_normal(shape).astype(np.float32)
        if argument.name in ("query_mass", "key_mass", "gravity"):
            numbers = np.abs(numbers)
        if argument.name == "exponent":
            numbers = 0.6 + np.abs(numbers)
        if argument.name in ("log_discount", "log_gate", "gate"):
            numbers = -np.abs(numbers) / 20
        inputs[argument.name] = numbers
    return inputs | (
        {"eps": 0.7} if "eps" in mechanism.options else {}
    )  # or a few near keys are all there is


def law(mechanism: Mechanism, inputs: dict[str, Any]) -> NDArray[np.float64]:
    wide = {n: a.astype(np.float64) if isinstance(a, np.ndarray) else a for n, a in inputs.items()}
    output: NDArray[np.float64] = mechanism.reference(**wide)[0]
    return output


@by_mechanism
def test_arguments_are_those_of_the_functions(mechanism: Mechanism) -> None:
    functions = mechanism.functions
    forward = inspect.signature(mechanism.forward).parameters
    listed = {a.name: a for a in functions.arguments}
    assert set(forward) == {*listed, *functions.masks} | (RESULTS & set(forward))
    for name, argument in listed.items():
        assert argument.optional == (forward[name].default is not inspect.Parameter.empty), name
    options = set(OPTIONS[mechanism.forward].__annotations__)
    keywords = {n for n, p in forward.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    needed = {"window"} if mechanism.needs_window and mechanism.causal_only else set()
    assert options == keywords - RESULTS - needed


@by_mechanism
def test_what_a_row_says_of_itself(mechanism: Mechanism) -> None:
    functions, name = mechanism.functions, mechanism.name
    assert mechanism.formula
    assert "arXiv" in mechanism.source or mechanism.source.startswith("our own")
    maps = [getattr(functions, name) for name in MAPS]
    assert all(maps) if mechanism.family == "softmax" else not any(maps)
    assert functions.second in inspect.signature(mechanism.forward).parameters
    assert mechanism.needs_window == name.startswith(("sliding_window", "residual_linear", "rattention"))
    assert mechanism.causal_only == (mechanism.family == "linear")
    without = ("residual_linear", "gated_linear", "gla", "gated_delta", "kda")
    assert mechanism.has_rope == ("gravit" not in name and name not in without)


@pytest.mark.parametrize("mechanism", SOFTMAX_FAMILY, ids=lambda m: m.name)
def test_the_map_of_a_row(mechanism: Mechanism) -> None:
    """Metrics and all that is read from a map by name, as code that looks at any layer calls them."""
    inputs = {n: a for n, a in draw(mechanism).items() if n != "value"}
    functions = mechanism.functions
    rows = functions.rows(**inputs, rows=[0, -1])
    whole = functions.map(**inputs, shape=(SIZES.length, SIZES.length))
    np.testing.assert_allclose(rows, whole[:, :, [0, -1]], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(functions.metrics(**inputs).max_weight, whole.max(-1), rtol=1e-5)
    ends = [0, SIZES.length]
    mass = functions.segments(**inputs, query_edges=ends, key_edges=ends)
    np.testing.assert_allclose(mass[..., 0, 0], whole.sum(axis=3).mean(axis=2), rtol=1e-5)
    np.testing.assert_allclose(functions.top_keys(**inputs, k=1).weights[..., 0], whole.max(-1), rtol=1e-5)
    shares = functions.distances(**inputs, edges=ends)
    np.testing.assert_allclose(shares[..., 0], mass[..., 0, 0], rtol=1e-5)


@by_mechanism
def test_parameters_and_options_are_arguments(mechanism: Mechanism) -> None:
    functions = mechanism.functions
    assert set(mechanism.parameters) <= {a.name for a in functions.arguments if a.differentiable}
    assert set(mechanism.options) <= {a.name for a in functions.arguments} | set(functions.masks)
    required = {a.name for a in functions.arguments if not a.optional}
    assert required <= {*mechanism.parameters, *mechanism.options}


@pytest.mark.row("N1")
@by_mechanism
def test_forward_is_the_reference(mechanism: Mechanism) -> None:
    inputs = draw(mechanism)
    got, exact = mechanism.forward(**inputs), law(mechanism, inputs)
    assert got.shape == exact.shape == (SIZES.batch, SIZES.heads, SIZES.length, SIZES.value_dim)
    assert np.abs(got - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.row("N3")
@by_mechanism
def test_backward_is_the_derivative_of_the_reference(mechanism: Mechanism) -> None:
    inputs = draw(mechanism)
    rng = np.random.default_rng(6)
    grad = rng.standard_normal((SIZES.batch, SIZES.heads, SIZES.length, SIZES.value_dim)).astype(np.float32)
    got = mechanism.gradients(grad, **inputs)
    assert set(got) == set(mechanism.parameters)
    for name, gradient in got.items():
        assert gradient.dtype == np.float32
        assert gradient.shape == inputs[name].shape
        direction, step = rng.standard_normal(gradient.shape), 1e-6
        ends = [law(mechanism, inputs | {name: inputs[name] + sign * step * direction}) for sign in (1, -1)]
        expected = float(((ends[0] - ends[1]) * grad).sum()) / (2 * step)
        scale = float(np.abs(gradient * direction).sum())
        assert abs(float((gradient * direction).sum()) - expected) <= 2e-5 * scale, name


@by_mechanism
def test_flops_grow_as_the_work_does(mechanism: Mechanism) -> None:
    """With the square of the length where all pairs count, in proportion to it where there is a window."""
    window = mechanism.options.get("window")
    one, two = (
        mechanism.flops(Sizes(1, 4, n, 32, 32, 4, window=window, causal=window is not None))
        for n in (2**16, 2**17)
    )
    whole = window is None and mechanism.family == "softmax"
    assert two / one == pytest.approx(4 if whole else 2, rel=0.01)


WINDOWS = [(w, causal) for w in (None, 0, 3, 9, 50) for causal in (False, True)]


@pytest.mark.parametrize(("window", "causal"), [*WINDOWS, (-1, True)])
def test_pairs_are_counted(window: int | None, causal: bool) -> None:
    distance = np.arange(10)[:, None] - np.arange(10)
    reach = 10 if window is None else window
    visible = (distance <= reach) & (distance >= (0 if causal else -reach))
    sizes = Sizes(2, 3, 10, 1, 1, 3, window=window, causal=causal)
    assert sizes.pairs == 6 * visible.sum()


EMPTY = {
    "no batch": replace(SIZES, batch=0),
    "no heads": replace(SIZES, heads=0, kv_heads=0),
    "no tokens": replace(SIZES, length=0),
    "no value dim": replace(SIZES, value_dim=0),
    "nothing": Sizes(0, 0, 0, 6, 0, 0),
}


@pytest.mark.row("H1")
@pytest.mark.parametrize("sizes", EMPTY.values(), ids=EMPTY)
@by_mechanism
def test_gradients_of_nothing(mechanism: Mechanism, sizes: Sizes) -> None:
    """Right shapes, and zeros where there are elements left."""
    inputs = draw(mechanism, sizes)
    grad = np.ones((sizes.batch, sizes.heads, sizes.length, sizes.value_dim), np.float32)
    gradients = mechanism.gradients(grad, **inputs)
    assert set(gradients) == set(mechanism.parameters)
    for name, gradient in gradients.items():
        assert gradient.shape == inputs[name].shape, name
        assert not gradient.any(), name


@pytest.mark.row("H1")
@pytest.mark.parametrize(("rows", "keys"), [(0, 5), (5, 0)])
@pytest.mark.parametrize("mechanism", SOFTMAX_FAMILY, ids=lambda m: m.name)
def test_gradients_without_rows_or_keys(mechanism: Mechanism, rows: int, keys: int) -> None:
    inputs = draw(mechanism)
    for argument in mechanism.functions.arguments:
        for axis, length in (("query_length", rows), ("key_length", keys)):
            if argument.name in inputs and axis in argument.shape:
                inputs[argument.name] = inputs[argument.name][:, :, :length]
    gradients = mechanism.gradients(np.ones((2, 4, rows, 5), np.float32), **inputs)
    for name, gradient in gradients.items():
        assert gradient.shape == inputs[name].shape, name
        assert not gradient.any(), name


@pytest.mark.parametrize("mechanism", TABLE, ids=lambda m: m.name)
def test_backward_functions_and_references_are_exported(mechanism: Mechanism) -> None:
    for function in (mechanism.functions.backward, mechanism.functions.reference):
        assert getattr(mechanisms, function.__name__) is function
        assert function.__name__ in mechanisms.__all__
