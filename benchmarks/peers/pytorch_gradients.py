"""PyTorch: the gradients of scaled_dot_product_attention, the forward pass done beforehand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.inputs import random_inputs
from benchmarks.peers.pytorch import load
from benchmarks.race import OURS, Runner, Setup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.inputs import Inputs
    from benchmarks.race import Answer

NAMES = ("query", "key", "value")


def sdpa_backward(setup: Setup, inputs: Inputs, grad: NDArray[Any], *, causal: bool = False) -> Runner:
    torch = load(setup)
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs]
    output = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)
    gradient = torch.from_numpy(grad)
    return Runner(lambda: torch.autograd.grad(output, tensors, gradient, retain_graph=True), by_name)


def both_passes(setup: Setup, implementation: str, dtype: str) -> Runner:
    """Forward and backward pass of full attention; the numbers are those that bfloat16 can hold."""
    torch = load(setup)
    shape = (4, *random_inputs(setup.length).query.shape)
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    *tensors, gradient = numbers.to(getattr(torch, dtype))
    tensors = [tensor.requires_grad_() for tensor in tensors]
    ours = implementation == OURS
    attend = (
        import_module("rattention.torch").attention
        if ours
        else torch.nn.functional.scaled_dot_product_attention
    )

    def call() -> Any:
        return torch.autograd.grad(attend(*tensors), tensors, gradient)

    return Runner(call, lambda gradients: by_name([tensor.float() for tensor in gradients]))


def by_name(gradients: Any) -> Answer:
    """Gradients of query, key and value, in this order."""
    return {name: tensor.numpy() for name, tensor in zip(NAMES, gradients, strict=True)}
