"""The loops of Transformers for the gated delta rule, in PyTorch: what its models run on a CPU."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.peers.pytorch import load, output
from benchmarks.race import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benchmarks.race import Answer, Setup

MODELS = "transformers.models"
NAMES = ("query", "key", "value", "log_gate", "beta")


def gated_delta(setup: Setup, inputs: Any) -> Runner:
    """As Qwen3-Next and Qwen3.5 call it in a prefill."""
    return _forward(setup, inputs, _rule("qwen3_next", "torch_chunk_gated_delta_rule"))


def kimi_delta(setup: Setup, inputs: Any) -> Runner:
    """As Kimi Linear calls it."""
    return _forward(setup, inputs, _rule("kimi_linear", "chunk_kimi_delta_attention"))


def gradients(setup: Setup, inputs: Any, grad: NDArray[Any]) -> Runner:
    """By autograd."""
    torch = load(setup)
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs.arrays]
    weights, rule = torch.from_numpy(grad), _rule("qwen3_next", "torch_chunk_gated_delta_rule")

    def answer(found: Any) -> Answer:
        return {name: gradient.numpy() for name, gradient in zip(NAMES, found, strict=True)}

    return Runner(lambda: torch.autograd.grad(rule(*tensors), tensors, weights), answer)


def step(setup: Setup, inputs: Any, state: NDArray[Any]) -> Runner:
    """One token, from a state."""
    torch = load(setup)
    own = torch.from_numpy(state)
    rule = _rule("qwen3_next", "torch_recurrent_gated_delta_rule", initial_state=own, output_final_state=True)
    tensors = [torch.from_numpy(array) for array in inputs.arrays]
    return Runner(torch.no_grad()(partial(rule, *tensors)), output)


def _forward(setup: Setup, inputs: Any, rule: Callable[..., Any]) -> Runner:
    torch = load(setup)
    tensors = [torch.from_numpy(array) for array in inputs.arrays]
    return Runner(torch.no_grad()(partial(rule, *tensors)), output)


def _rule(model: str, name: str, **options: Any) -> Callable[..., Any]:
    """On ``[batch, heads, length, head_dim]``."""
    function = getattr(import_module(f"{MODELS}.{model}.modeling_{model}"), name)
    options = {"output_final_state": False, "use_qk_l2norm_in_kernel": True} | options

    def rule(*tensors: Any) -> Any:
        query, key, value, log_gate, beta = (tensor.transpose(1, 2) for tensor in tensors)
        return function(query, key, value, g=log_gate, beta=beta, **options)[0].transpose(1, 2)

    return rule
