"""The functions of the table on CPU tensors: what the operations run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rattention._metrics import MetricOptions
from rattention.mechanisms.softmax_family import AttentionResult
from rattention.torch.storage import as_array, as_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.torch.schema import Signature


def forward(signature: Signature, values: Sequence[Any]) -> list[torch.Tensor]:
    """The results, in the order of the operation."""
    arguments = _on_arrays(signature, values)
    if signature.functions.family == "linear":
        result = signature.functions.forward(**arguments)
        return [as_tensor(array) for array in (result if isinstance(result, tuple) else (result,))]
    result = signature.functions.forward(**arguments)
    if not isinstance(result, AttentionResult):
        return [as_tensor(result)]
    arrays = [result.output]
    if result.exact_lse is not None:
        rest = np.empty(0, np.float32) if result.output_rest is None else result.output_rest
        arrays += [result.exact_lse, rest]
    measured = [] if result.metrics is None else [array for _, array in result.metrics]
    return [as_tensor(array) for array in (*arrays, *measured)]


def backward(signature: Signature, values: Sequence[Any]) -> list[torch.Tensor]:
    """The gradients, each in its argument's dtype."""
    grad_output, grad_second, *rest = values
    count = len(signature.saved)
    arguments = _on_arrays(signature, rest[count:])
    second = None if grad_second is None else as_array(grad_second.to(torch.float32))
    if signature.functions.family == "linear":
        del arguments["return_state"]
        given: dict[str, Any] = {"grad_state": second}
    else:
        del arguments["metrics"], arguments["return_lse"]
        output, lse, output_rest = (as_array(tensor) for tensor in rest[:count])
        result = AttentionResult.of(output, lse, output_rest if output_rest.ndim == 4 else None, None)
        given = {"grad_lse": second, "result": result}
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
