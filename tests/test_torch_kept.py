"""Backward passes whose forward pass could not know of them, or whose results were changed since."""

from __future__ import annotations

from typing import Any

import pytest
import rattention as ra

from tests.extras import needs

needs("torch")

import rattention.torch as rt
import torch


def gated(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
    return rt.gated_linear_attention(query, key, value, -key[..., 0].square(), **options)


def gated_by_channel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
    return rt.gated_linear_attention(query, key, value, -key.square(), **options)


FUNCTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "attention": (rt.attention, {"causal": True}),
    "residual linear": (rt.residual_linear_attention, {"window": 3}),
    "gated linear": (gated, {}),
    "gla": (gated_by_channel, {}),
    "rattention": (rt.rattention, {"window": 3, "rope_theta": 1e4}),
}
each = pytest.mark.parametrize("name", FUNCTIONS)


def draw(*batch: int) -> torch.Tensor:
    return torch.randn(*batch, 1, 2, 450, 8, generator=torch.Generator().manual_seed(0))


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vmap_hides_what_asks_for_gradients(name: str, dtype: torch.dtype) -> None:
    function, options = FUNCTIONS[name]
    rows = draw(3).to(dtype).requires_grad_()
    mapped = torch.func.vmap(lambda x: function(x, x, x, **options))(rows)
    (got,) = torch.autograd.grad(mapped.float().square().sum(), rows)
    parts = [function(x, x, x, **options) for x in rows]
    (wanted,) = torch.autograd.grad(torch.stack(parts).float().square().sum(), rows)
    error = (got.float() - wanted.float()).norm() / wanted.float().norm()
    assert error < (1e-6 if dtype == torch.float32 else 1e-2)


@each
def test_traces_of_inputs_without_gradients(name: str) -> None:
    function, options = FUNCTIONS[name]

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x, x, x, **options)

    rows = draw()
    exported = torch.export.export(Module(), (rows,)).module()
    rows.requires_grad_()
    (got,) = torch.autograd.grad(exported(rows).square().sum(), rows)
    (wanted,) = torch.autograd.grad(function(rows, rows, rows, **options).square().sum(), rows)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ["residual linear", "gated linear", "gla", "rattention"])
def test_outputs_and_states_may_be_changed_in_place(name: str) -> None:
    function, options = FUNCTIONS[name]
    rows = draw().requires_grad_()
    output, state = function(rows, rows, rows, return_state=True, **options)
    (wanted,) = torch.autograd.grad(2 * output.sum() + 2 * state.sum(), rows)
    output, state = function(rows, rows, rows, return_state=True, **options)
    output.mul_(2)
    state.mul_(2)
    (got,) = torch.autograd.grad(output.sum() + state.sum(), rows)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ["residual linear", "gated linear", "gla", "rattention"])
def test_no_heads(name: str) -> None:
    function, options = FUNCTIONS[name]
    nothing = torch.zeros(1, 0, 5, 4, requires_grad=True)
    compiled = torch.compile(lambda x: function(x, x, x, **options), backend="aot_eager")
    assert compiled(nothing).shape == nothing.shape


def test_the_core_without_query_heads() -> None:
    query, key = torch.zeros(1, 0, 5, 4).numpy(), torch.zeros(1, 2, 5, 4).numpy()
    assert ra.residual_linear_attention(query, key, key, window=1).shape == (1, 0, 5, 4)
