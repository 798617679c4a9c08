"""From a user's tensors to the operation, or to plain PyTorch where the tensors are not the CPU's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from rattention._arguments import positive, real_number, truth, whole_number
from rattention.mechanisms.rotary import rotary_rates
from rattention.mechanisms.softmax_family import core_window
from rattention.torch import delta_composition, linear_composition, softmax_composition
from rattention.torch.checks import (
    as_array,
    require_floats,
    require_mask_dtypes,
    require_no_tangents,
    require_one_dtype,
    require_other_shapes,
    require_shapes,
    require_tensors,
)
from rattention.torch.ops import OPERATIONS, SIGNATURES
from rattention.torch.short_calls import at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from rattention.torch.ops import Signature

COMPOSITIONS: dict[str, Callable[..., list[Tensor]]] = {
    function.__name__: function
    for function in (
        softmax_composition.attention,
        softmax_composition.gravitational_attention,
        linear_composition.residual_linear_attention,
        linear_composition.gated_linear_attention,
        delta_composition.gated_delta_rule,
        linear_composition.rattention,
    )
}


def run(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """What a public function on arrays returns, on tensors; `given` may lack arguments with a default."""
    signature = SIGNATURES[function]
    output = at_once(signature, given)
    if output is not None:
        return output
    arguments, results = {**signature.defaults, **given}, signature.results
    if arguments.keys() != signature.parameters:
        _refuse_names(signature, arguments)
    wanted = {flag: arguments.pop(flag) for flag in results.flags if flag in signature.parameters}
    inputs = _prepared(signature, arguments)
    given_tensors = [t for n in (*signature.differentiable, "attn_mask") if (t := inputs.get(n)) is not None]
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given_tensors)
    inputs |= results.asked(wanted, differentiated)
    on_cpu = inputs["query"].device.type == "cpu"
    made = (_operated if on_cpu else _composed)(signature, inputs)
    return results.returned(made, wanted, inputs)


def _refuse_names(signature: Signature, arguments: dict[str, Any]) -> NoReturn:
    for name in arguments:
        if name not in signature.parameters:
            raise TypeError(f"{signature.name}() got an unexpected keyword argument '{name}'")
    missing = min(signature.parameters - arguments.keys())
    raise TypeError(f"{signature.name}() missing 1 required keyword-only argument: '{missing}'")


def _operated(signature: Signature, inputs: dict[str, Any]) -> list[Tensor]:
    require_no_tangents(signature.name, inputs.values())
    try:
        return OPERATIONS[signature.functions.forward](*[inputs[name] for name in signature.names])
    except RuntimeError as error:
        if "functorch transforms" not in str(error):
            raise
        raise NotImplementedError(
            f"rattention.torch.{signature.name} cannot be in torch.func.grad, vjp or jvp: PyTorch has them "
            "for its own operations only; torch.autograd and torch.func.vmap work"
        ) from error


def _prepared(signature: Signature, arguments: dict[str, Any]) -> dict[str, Any]:
    """Checked tensors in the dtypes of the operation, and windows as pairs."""
    require_tensors(arguments, signature.of_query_dtype, signature.needed)
    for name in signature.of_query_dtype:
        arguments[name] = autocast(arguments[name])
    for argument in signature.functions.arguments:
        value = arguments[argument.name]
        if argument.kind == "per query" and isinstance(value, torch.Tensor) and value.dim() == 3:
            _require_per_query(argument.name, value, arguments["query"])
        elif argument.kind == "table" and value is not None:
            arguments[argument.name] = _table(value)
        elif argument.kind in ("per head", "per query") and value is not None:
            arguments[argument.name] = _per_head(argument.name, value, arguments["query"])
    require_tensors(arguments, signature.on_one_device, signature.needed)
    require_floats(arguments, signature.differentiable)
    require_one_dtype(arguments, signature.of_query_dtype)
    require_mask_dtypes(arguments)
    for name in ("scale", "eps", "rope_theta", "softcap"):
        if arguments.get(name) is not None:
            (real_number if name == "scale" else positive)(name, arguments[name])
    if "normalize" in arguments:
        arguments["normalize"] = truth("normalize", arguments["normalize"])
    for name in signature.in_float32:
        if arguments[name] is not None:
            arguments[name] = arguments[name].to(torch.float32)
    if "causal" in arguments:
        arguments["causal"] = truth("causal", arguments["causal"])
        if arguments["window"] is not None:
            arguments["window"] = core_window(arguments["window"], arguments["causal"])
    elif "window" in arguments:
        arguments["window"] = min(whole_number("window", arguments["window"]), 2**62)
    return arguments


AUTOCAST = frozenset(filter(torch.amp.is_autocast_available, ("cpu", "cuda", "xpu", "mps", "hpu")))
"""Devices that have it; asked once, because compilers of older releases cannot ask."""


def autocast(tensor: Tensor) -> Tensor:
    """The tensor in the dtype of autocast, where that is on."""
    device = tensor.device.type
    if device in AUTOCAST and torch.is_autocast_enabled(device):
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor


def _per_head(name: str, value: Any, query: Tensor) -> Tensor:
    """A number, or one per head, as ``[heads]``."""
    heads = query.shape[1] if query.dim() == 4 else 1
    if not isinstance(value, Tensor):
        return torch.full((heads,), real_number(name, value), dtype=torch.float32, device=query.device)
    if value.dim() == 0:
        return value.expand(heads)
    if value.shape != (heads,):
        raise ValueError(f"{name} must be a number or one per head ({heads}), got shape {tuple(value.shape)}")
    return value


def _table(value: Any) -> Tensor:
    """Numbers that the core reads on the CPU, wherever the other tensors are."""
    table = torch.as_tensor(value).detach().cpu()
    return table.to(torch.float64) if table.is_floating_point() else table


def _require_per_query(name: str, value: Tensor, query: Tensor) -> None:
    if query.dim() == 4 and value.shape != query.shape[:3]:
        raise ValueError(
            f"{name} must have shape {tuple(query.shape[:3])}, one per query, got {tuple(value.shape)}"
        )


def _composed(signature: Signature, inputs: dict[str, Any]) -> list[Tensor]:
    """Plain PyTorch, after the checks of shapes that the core would do."""
    query, key, value = (inputs[name] for name in ("query", "key", "value"))
    require_shapes(query, key, value)
    require_other_shapes(signature.functions, inputs)
    signature.results.require_beside_cpu(inputs)
    if (frequencies := inputs.get("rope_frequencies")) is not None:
        rotary_rates(inputs["rope_theta"], as_array(frequencies), query.shape[3])
    return COMPOSITIONS[signature.name](**inputs)
