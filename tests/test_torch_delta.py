"""The gated delta rule on tensors: float64's autograd, decoding, compilers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.extras import needs

needs("torch")

import rattention as ra
import rattention.torch as rt
import torch
from rattention.torch import delta_composition

from tests.delta_rule import CASES, drawn, recurrence

by_case = pytest.mark.parametrize("case", CASES)


@by_case
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("length", [1, 48, 131])
def test_gradients_are_those_of_float64(case: str, normalize: bool, length: int) -> None:
    exact = [x.requires_grad_() for x in drawn(length, **CASES[case])]
    heads, dim, value_dim = exact[0].shape[1], exact[0].shape[3], exact[2].shape[3]
    start = torch.randn(2, heads, dim, value_dim, dtype=torch.float64).requires_grad_()
    single = [x.detach().float().requires_grad_() for x in (*exact, start)]
    grads = [torch.randn(2, heads, length, value_dim), torch.randn(2, heads, dim, value_dim)]

    def gradients(results: Any, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        total = sum((x * g).sum() for x, g in zip(results, grads, strict=True))
        return torch.autograd.grad(total, inputs)

    options: dict[str, Any] = {"normalize": normalize}
    law = gradients(recurrence(*exact, initial_state=start, **options), [*exact, start])
    ours = gradients(
        rt.gated_delta_rule(*single[:5], initial_state=single[5], return_state=True, **options), single
    )
    for got, right in zip(ours, law, strict=True):
        assert got.dtype == torch.float32
        assert float((got - right).abs().max()) <= 2e-5 * max(float(right.abs().max()), 1.0)


@by_case
def test_kernel_and_composition_agree_in_bfloat16(case: str) -> None:
    query, key, value, log_gate, beta = (x.float() for x in drawn(100, **CASES[case]))
    rows = [x.bfloat16() for x in (query, key, value)]
    got = rt.gated_delta_rule(*rows, log_gate, beta)
    right = delta_composition.gated_delta_rule(*rows, log_gate, beta)[0]
    assert got.dtype == right.dtype == torch.bfloat16
    torch.testing.assert_close(got, right, rtol=1e-2, atol=1e-2)


@by_case
def test_steps_are_the_whole(case: str) -> None:
    inputs = [x.float() for x in drawn(20, **CASES[case])]
    batch, heads, _, dim = inputs[0].shape
    cache = ra.GatedDeltaCache(batch, heads, dim, value_dim=inputs[2].shape[3])
    rows = [rt.gated_delta_step(*(x[:, :, t : t + 1] for x in inputs), cache) for t in range(20)]
    torch.testing.assert_close(torch.cat(rows, dim=2), rt.gated_delta_rule(*inputs), rtol=1e-4, atol=1e-5)


def test_steps_on_tensors_refuse_what_arrays_do() -> None:
    inputs = [x.float() for x in drawn(1)]
    cache = ra.GatedDeltaCache(2, 2, 5, value_dim=7)
    with pytest.raises(TypeError, match="query"):
        rt.gated_delta_step(inputs[0].numpy(), *inputs[1:], cache)
    with pytest.raises(ValueError, match="query must be on the CPU"):
        rt.gated_delta_step(*(x.to("meta") for x in inputs), cache)


def test_compiled_whole() -> None:
    inputs = [x.float().requires_grad_() for x in drawn(60, channels=True)]

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return rt.gated_delta_rule(*tensors, normalize=True).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs)
    )
