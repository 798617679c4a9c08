"""The functions of the table on CPU tensors: what the operations run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rattention._metrics import MetricOptions
from rattention.torch.storage import as_array, as_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.torch.schema import Signature


def forward(signature: Signature, values: Sequence[Any]) -> list[torch.Tensor]:
    """The results, in the order of the operation."""
    result = signature.functions.forward(**_on_arrays(signature, values))
    return [as_tensor(array) for array in signature.results.arrays(result)]


def backward(signature: Signature, values: Sequence[Any]) -> list[torch.Tensor]:
    """The gradients, each in its argument's dtype."""
    grad_output, grad_second, *rest = values
    count = len(signature.results.saved)
    arguments = _on_arrays(signature, rest[count:])
    for flag in signature.results.flags:
        del arguments[flag]
    second = None if grad_second is None else as_array(grad_second.to(torch.float32))
    given = signature.results.for_backward(rest[:count], second)
    gradients = signature.functions.backward(as_array(grad_output), **arguments, **given)
    tensors = dict(zip(signature.names, rest[count:], strict=True))
    return [
        as_tensor(gradients[name]).to(tensors[name].dtype)
        for name in signature.differentiable
        if tensors[name] is not None
    ]


def _on_arrays(signature: Signature, values: Sequence[Any]) -> dict[str, Any]:
    arguments = dict(zip(signature.names, values, strict=True))
    for name in signature.tensors:
        if arguments[name] is not None:
            arguments[name] = as_array(arguments[name])
    if arguments.get("metrics") is not None:
        radius, distance, received = arguments["metrics"]
        arguments["metrics"] = MetricOptions(radius, distance, bool(received))
    if "causal" in arguments and arguments["window"] is not None:
        left, right = (None if reach < 0 else reach for reach in arguments["window"])
        arguments["window"] = left, right
    return arguments
