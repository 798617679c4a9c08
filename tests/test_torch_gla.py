"""Gated linear attention with a gate per channel on tensors, and steps: float64's autograd, plain PyTorch,
compilers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.extras import needs

needs("torch")

import rattention as ra
import rattention.torch as rt
import torch
from rattention.torch import short_calls
from rattention.torch.linear_composition import gated_linear_attention as composed

Tensors = list[torch.Tensor]
SIZES = {"one head each": (2, 2), "grouped": (4, 2), "one for all": (4, 1)}
by_size = pytest.mark.parametrize("heads", SIZES.values(), ids=SIZES)


def drawn(length: int, heads: tuple[int, int] = (2, 2), *, strongest: float = 3.0) -> Tensors:
    """Query, key, value and gates in float64."""
    generator = torch.Generator().manual_seed(length)

    def normal(count: int, dim: int) -> torch.Tensor:
        return torch.randn(2, count, length, dim, generator=generator, dtype=torch.float64)

    query, key, value = normal(heads[0], 5), normal(heads[1], 5), normal(heads[1], 7)
    gates = -strongest * torch.rand(key.shape, generator=generator, dtype=torch.float64) ** 4
    return [query, key, value, gates]


def recurrence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_gate: torch.Tensor,
    initial_state: torch.Tensor,
    key_mask: torch.Tensor | None = None,
    segment_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token, with a state per query head."""
    group = query.shape[1] // key.shape[1]
    key, value, log_gate = (x.repeat_interleave(group, dim=1) for x in (key, value, log_gate))
    state = initial_state.repeat_interleave(query.shape[1] // initial_state.shape[1], dim=1)
    rows = []
    for t in range(query.shape[2]):
        if segment_ids is not None and t > 0:
            same = segment_ids[:, t] == segment_ids[:, t - 1]
            state = torch.where(same[:, None, None, None], state, 0.0)
        after = log_gate[:, :, t, :, None].exp() * state + key[:, :, t, :, None] * value[:, :, t, None]
        shown = None if key_mask is None else key_mask[:, t, None, None, None]
        state = after if shown is None else torch.where(shown, after, state)
        rows.append((query[:, :, t, None] @ state)[:, :, 0])
    own = state[:, :: query.shape[1] // initial_state.shape[1]]
    return torch.stack(rows, dim=2) * query.shape[3] ** -0.5, own


def masks_of(length: int) -> dict[str, torch.Tensor]:
    shown = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) < 0.7
    return {"key_mask": shown, "segment_ids": torch.arange(length).expand(2, -1) // 23}


def gradients(function: Any, inputs: Tensors, **options: Any) -> Tensors:
    """Of random weights of output and state."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    results = function(*inputs[:4], initial_state=inputs[4], **options)
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in results]
    return [*torch.autograd.grad([*results], inputs, weights)]


def plain(*inputs: torch.Tensor, **options: Any) -> Tensors:
    named = {"key_mask": None, "segment_ids": None, **options}
    return composed(*inputs, window=-1, feature_map=None, scale=None, return_state=True, **named)


@by_size
@pytest.mark.parametrize("length", [1, 16, 48, 131])
def test_gradients_are_those_of_float64(length: int, heads: tuple[int, int]) -> None:
    """Of the kernels, and of plain PyTorch to all digits."""
    inputs = drawn(length, heads)
    for state_heads in {*heads}:
        exact = [*inputs, torch.randn(2, state_heads, 5, 7, dtype=torch.float64)]
        for options in ({}, masks_of(length)):
            law = gradients(recurrence, exact, **options)
            for got, right in zip(gradients(plain, exact, **options), law, strict=True):
                torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-9)
            single = [x.float() for x in exact]
            ours = gradients(rt.gated_linear_attention, single, return_state=True, **options)
            for got, right in zip(ours, law, strict=True):
                assert got.dtype == torch.float32
                assert float((got - right).abs().max()) <= 2e-5 * max(float(right.abs().max()), 1.0)


@by_size
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 65])
def test_plain_pytorch_is_the_recurrence(length: int, heads: tuple[int, int]) -> None:
    inputs = drawn(length, heads, strongest=50.0)
    output, state = plain(*inputs, initial_state=None)
    assert output.shape == (2, heads[0], length, 7)
    assert state.shape == (2, heads[1], 5, 7)
    if length:
        blank = torch.zeros(2, heads[1], 5, 7, dtype=torch.float64)
        for got, right in zip((output, state), recurrence(*inputs, initial_state=blank), strict=True):
            torch.testing.assert_close(got, right, rtol=1e-11, atol=1e-11)


def test_kernel_and_plain_pytorch_agree_in_bfloat16() -> None:
    inputs = [x.float() for x in drawn(100)]
    inputs[:3] = [x.bfloat16() for x in inputs[:3]]
    got, state = rt.gated_linear_attention(*inputs, return_state=True)
    right = plain(*inputs, initial_state=None)
    assert got.dtype == right[0].dtype == torch.bfloat16
    torch.testing.assert_close(got, right[0], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(state, right[1], rtol=1e-4, atol=1e-4)


@by_size
def test_compiled_whole(heads: tuple[int, int]) -> None:
    inputs = [x.float().requires_grad_() for x in drawn(100, heads)]

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return rt.gated_linear_attention(*tensors).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, "takes window=-1 and feature_map=None, got window=3"),
        ({"feature_map": "relu"}, "takes window=-1 and feature_map=None"),
        ({"log_gate": torch.zeros(2, 2, 9, 4)}, r"log_gate must have shape .*\(2, 2, 9, 5\)"),
        ({"initial_state": torch.zeros(2, 2, 5, 6)}, "initial_state must have shape"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_refused(device: str, options: dict[str, Any], message: str) -> None:
    names = ("query", "key", "value", "log_gate")
    given = dict(zip(names, (x.float() for x in drawn(9)), strict=True)) | options
    moved = {n: x.to(device) if isinstance(x, torch.Tensor) else x for n, x in given.items()}
    with pytest.raises(ValueError, match=message):
        rt.gated_linear_attention(**moved)


STEPS = {"gated linear": rt.gated_linear_step, "delta": rt.gated_delta_step}
by_step = pytest.mark.parametrize("kind", STEPS)
by_gates = pytest.mark.parametrize("channels", [False, True], ids=["per head", "per channel"])


def tokens(kind: str, length: int, *, channels: bool, dtype: torch.dtype = torch.float32) -> Tensors:
    query, key, value, gates = drawn(length)
    rows = [x.to(dtype) for x in (query, key, value)]
    beta = [] if kind == "gated linear" else [torch.rand(query.shape[:3])]
    return [*rows, (gates if channels else gates[..., 0]).float(), *beta]


def piece(inputs: Tensors, first: int, last: int, *, contiguous: bool) -> Tensors:
    parts = [x[:, :, first:last] for x in inputs]
    return [x.contiguous() for x in parts] if contiguous else parts


@by_step
@by_gates
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("contiguous", [True, False])
def test_steps_are_those_on_arrays(
    kind: str, channels: bool, dtype: torch.dtype, contiguous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By PyTorch's exchange protocol, and as before it had one: the same bits; up to rounding the whole."""
    inputs, step = tokens(kind, 12, channels=channels, dtype=dtype), STEPS[kind]
    outputs, states = [], []
    for exchange in (short_calls.EXCHANGE, None):
        monkeypatch.setattr(short_calls, "EXCHANGE", exchange)
        cache = ra.GatedDeltaCache(2, 2, 5, value_dim=7)
        cuts = [0, 3, 4, 5, 12]
        parts = [piece(inputs, a, b, contiguous=contiguous) for a, b in pairwise(cuts)]
        outputs.append(torch.cat([step(*part, cache) for part in parts], dim=2))
        states.append(torch.from_numpy(cache.state))
        assert cache.length == 12
    assert outputs[0].dtype == dtype
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(states[0], states[1])
    whole = rt.gated_linear_attention if kind == "gated linear" else rt.gated_delta_rule
    expected = whole(*inputs, return_state=True)
    torch.testing.assert_close(outputs[0], expected[0])
    torch.testing.assert_close(states[0], expected[1], rtol=1e-4, atol=1e-5)


@by_step
def test_the_core_reads_plain_tensors_itself(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if short_calls.EXCHANGE is None:
        pytest.skip("this PyTorch has no exchange protocol")
    monkeypatch.setattr(short_calls, "as_array", None)
    monkeypatch.setattr("rattention.torch.steps.as_array", None)
    inputs, cache = tokens(kind, 1, channels=True), ra.GatedDeltaCache(2, 2, 5, value_dim=7)
    inputs[0].requires_grad_()
    assert not STEPS[kind](*inputs, cache).requires_grad


@by_step
def test_negated_and_masked_tokens(kind: str) -> None:
    inputs, cache = tokens(kind, 3, channels=False), ra.GatedDeltaCache(2, 2, 5, value_dim=7)
    expected = STEPS[kind](*inputs, cache)
    again = ra.GatedDeltaCache(2, 2, 5, value_dim=7)
    negated = torch.complex(torch.zeros_like(inputs[0]), -inputs[0]).conj().imag
    assert negated.is_neg()
    shown = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(STEPS[kind](negated, *inputs[1:], again, key_mask=shown), expected)
    again = ra.GatedDeltaCache(2, 2, 5, value_dim=7)
    assert torch.equal(STEPS[kind](negated, *inputs[1:], again), expected)


def test_the_delta_rule_needs_betas() -> None:
    """Without them the core takes a step of gated linear attention."""
    inputs, cache = tokens("delta", 1, channels=True), ra.GatedDeltaCache(2, 2, 5, value_dim=7)
    with pytest.raises(TypeError, match=r"beta must be a torch\.Tensor, got NoneType"):
        rt.gated_delta_step(*inputs[:4], None, cache)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"beta must be a torch\.Tensor, got NoneType"):
        rt.gated_delta_rule(*inputs[:4], None)  # type: ignore[arg-type]
    assert cache.length == 0


@by_step
def test_what_steps_refuse(kind: str) -> None:
    inputs, cache = tokens(kind, 1, channels=True), ra.GatedDeltaCache(2, 2, 5, value_dim=7)
    wrong: list[tuple[int, Any, type[Exception], str]] = [
        (0, inputs[0].numpy(), TypeError, "query must be a torch.Tensor"),
        (0, inputs[0].to("meta"), ValueError, "all tensors must be on one device"),
        (0, inputs[0].to_sparse(), TypeError, "query must be a dense"),
        (1, inputs[1].double(), TypeError, "key has dtype torch.float64"),
        (1, inputs[1].bfloat16(), TypeError, "all inputs must have the same dtype"),
        (1, inputs[1][..., :4], ValueError, "key has head_dim 4, query has 5"),
        (3, 1 - inputs[3], ValueError, "log_gate must be <= 0"),
        (3, inputs[3][..., :4], ValueError, "log_gate must have shape"),
        (3, inputs[3] * torch.nan, ValueError, "20 of 20 are not"),
    ]
    for at, bad, error, message in wrong:
        with pytest.raises(error, match=message):
            STEPS[kind](*inputs[:at], bad, *inputs[at + 1 :], cache)
    for options, error in (({"scale": float("nan")}, ValueError), ({"scale": "1"}, TypeError)):
        with pytest.raises(error, match="scale must be"):
            STEPS[kind](*inputs, cache, **options)
    with pytest.raises(TypeError, match="cache must be a GatedDeltaCache"):
        STEPS[kind](*inputs, None)
    assert cache.length == 0
    assert not cache.state.any()
