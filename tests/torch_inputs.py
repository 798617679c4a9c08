"""What the tests on tensors share: inputs for every row of the table of mechanisms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rattention.mechanisms.row import Mechanism, Sizes

from tests.extras import needs
from tests.variants import TABLE

needs("torch")

import rattention.torch as rt
import torch
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = Sizes(batch=2, heads=4, length=37, head_dim=8, value_dim=6, kv_heads=2)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

by_mechanism = pytest.mark.parametrize("mechanism", TABLE, ids=lambda m: m.name)


class Names(TorchDispatchMode):
    """Of the operations that PyTorch's dispatcher sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(function.name())
        return function(*args, **(kwargs or {}))


def draw(mechanism: Mechanism, sizes: Sizes = SIZES, dtype: str = "float32", seed: int = 0) -> dict[str, Any]:
    """Tensors for all differentiable arguments of the mechanism, requiring gradients, and its options."""
    generator = torch.Generator().manual_seed(seed)
    inputs: dict[str, Any] = dict(mechanism.options)
    for argument in mechanism.functions.arguments:
        if argument.name not in mechanism.parameters:
            continue
        shape = tuple(getattr(sizes, name) for name in argument.shape) or (sizes.heads,)
        tensor = torch.randn(shape, generator=generator)
        if argument.name in ("log_discount", "log_gate", "gate"):
            tensor = -0.1 * tensor.abs()
        elif argument.name.endswith("mass") or argument.name == "gravity":
            tensor = tensor.abs()
        elif argument.name == "exponent":
            tensor = 0.6 + tensor.abs()
        has_length = {"query_length", "key_length"} & {*argument.shape}
        inputs[argument.name] = tensor.to(DTYPES[dtype] if has_length else torch.float32).requires_grad_()
    if "eps" in inputs:
        inputs["eps"] = 0.7  # smooth enough for differences
    return inputs


def tensors_of(inputs: dict[str, Any]) -> dict[str, Any]:
    """Those of the inputs that are differentiable."""
    return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}


def on_arrays(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs for the functions on arrays."""
    return {n: to_numpy(v) if isinstance(v, torch.Tensor) else v for n, v in inputs.items()}


def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    import ml_dtypes

    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def with_second(mechanism: Mechanism) -> dict[str, bool]:
    """The option that asks for lse or state."""
    return {"return_lse" if mechanism.family == "softmax" else "return_state": True}


def on_tensors(mechanism: Mechanism) -> Any:
    """The mechanism's function on tensors."""
    return getattr(rt, mechanism.forward.__name__)


def two_results(mechanism: Mechanism, inputs: dict[str, Any], **masks: Any) -> Any:
    """Output, and lse or state."""
    return on_tensors(mechanism)(**(inputs | masks), **with_second(mechanism))[:2]


MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "padding": {"key_mask": torch.arange(37).repeat(2, 1) % 3 > 0},
    "segments": {"segment_ids": torch.arange(37).repeat(2, 1) // 9},
    "both": {
        "key_mask": torch.arange(37).repeat(2, 1) % 5 > 0,
        "segment_ids": torch.arange(37).repeat(2, 1) // 11 % 2,
    },
}
SOFTMAX_MASKS: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "window": {"causal": True, "window": 7},
    "two-sided": {"window": (3, None)},
    "offset": {"causal": True, "query_offset": -3},
    "blocks": {"causal": True, "window": 4, "block_ids": (torch.arange(37) // 5 % 3 - 1).repeat(2, 1)},
    "dense": {"attn_mask": (torch.arange(37)[:, None] + torch.arange(37)) % 4 > 0},
    "bias": {"attn_mask": torch.linspace(-3, 3, 37).masked_fill(torch.arange(37) == 5, -torch.inf)},
}


def masks_of(mechanism: Mechanism) -> dict[str, dict[str, Any]]:
    return MASKS | (SOFTMAX_MASKS if mechanism.family == "softmax" else {})


CASES = [(m, name) for m in TABLE for name in masks_of(m)]
by_case = pytest.mark.parametrize(("mechanism", "masks"), CASES, ids=[f"{m.name}-{n}" for m, n in CASES])
