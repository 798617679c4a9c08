"""PyTorch: gravitational attention with the whole map in memory, compiled or not, by the faster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import fastest, load, needs_compiler, output
from benchmarks.race import Runner, Setup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from numpy.typing import NDArray


def forward(setup: Setup, inputs: dict[str, NDArray[Any]], eps: float) -> Runner:
    torch = load(setup)
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    with needs_compiler(torch):
        calls = [partial(attend, *tensors) for attend in _ways(setup, torch, eps)]
        return Runner(fastest([torch.no_grad()(call) for call in calls]), output)


def gradients(setup: Setup, inputs: dict[str, NDArray[Any]], grad: NDArray[Any], eps: float) -> Runner:
    """Forward and backward pass."""
    torch = load(setup)
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs.values()]
    gradient = torch.from_numpy(grad)

    def candidate(attend: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(attend(*tensors), tensors, gradient)

    def answer(found: Any) -> dict[str, NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in zip(inputs, found, strict=True)}

    with needs_compiler(torch):
        return Runner(fastest([candidate(attend) for attend in _ways(setup, torch, eps)]), answer)


def _ways(setup: Setup, torch: ModuleType, eps: float) -> list[Callable[..., Any]]:
    """Distances by ``cdist`` or from products, each as it is and compiled."""
    plain = [partial(attend, torch, eps=eps) for attend in (_by_cdist, _by_products)]
    return plain[:1] if setup.quick else plain + [torch.compile(attend, dynamic=False) for attend in plain]


def _by_cdist(torch: ModuleType, query: Any, key: Any, *others: Any, eps: float) -> Any:
    return _weigh(torch.cdist(query, key).square(), *others, eps)


def _by_products(torch: ModuleType, query: Any, key: Any, *others: Any, eps: float) -> Any:
    squares = query.square().sum(-1, keepdim=True) + key.square().sum(-1).unsqueeze(-2)
    return _weigh((squares - 2 * query @ key.mT).clamp_min(0), *others, eps)


def _weigh(squared: Any, value: Any, query_mass: Any, key_mass: Any, eps: float) -> Any:
    scores = query_mass.unsqueeze(-1) * key_mass.unsqueeze(-2) / (squared + eps)
    return scores.softmax(-1) @ value
