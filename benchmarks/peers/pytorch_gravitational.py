"""PyTorch: gravitational attention in eager mode, by ``torch.cdist`` and with the whole map in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import load, output
from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray


def forward(setup: Setup, inputs: dict[str, NDArray[Any]], eps: float) -> Runner:
    torch = load(setup)
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    return Runner(torch.no_grad()(lambda: _eager(torch, *tensors, eps=eps)), output)


def gradients(setup: Setup, inputs: dict[str, NDArray[Any]], grad: NDArray[Any], eps: float) -> Runner:
    """Forward and backward pass."""
    torch = load(setup)
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs.values()]
    gradient = torch.from_numpy(grad)

    def answer(found: Any) -> dict[str, NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in zip(inputs, found, strict=True)}

    return Runner(lambda: torch.autograd.grad(_eager(torch, *tensors, eps=eps), tensors, gradient), answer)


def _eager(
    torch: ModuleType, query: Any, key: Any, value: Any, query_mass: Any, key_mass: Any, *, eps: float
) -> Any:
    squared = torch.cdist(query, key).square()
    scores = query_mass.unsqueeze(-1) * key_mass.unsqueeze(-2) / (squared + eps)
    return scores.softmax(-1) @ value
