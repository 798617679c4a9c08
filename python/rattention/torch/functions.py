"""From a user's tensors to the operation, or to plain PyTorch where the tensors are not the CPU's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec

import torch

from rattention._arguments import real_number, whole_number
from rattention._metrics import AttentionMetrics, MetricOptions
from rattention.mechanisms.masks import window_bounds
from rattention.mechanisms.residual_linear import FEATURE_MAPS
from rattention.mechanisms.score_options import require_metric_options
from rattention.mechanisms.softmax import attention
from rattention.mechanisms.softmax_family import AttentionResult
from rattention.torch import linear_composition, softmax_composition
from rattention.torch.checks import (
    require_floats,
    require_mask_dtypes,
    require_one_dtype,
    require_other_shapes,
    require_shapes,
    require_tensors,
)
from rattention.torch.ops import OPERATIONS, SIGNATURES
from rattention.torch.schema import METRIC_NAMES, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

P = ParamSpec("P")

COMPOSITIONS: dict[str, Callable[..., list[torch.Tensor]]] = {
    function.__name__: function
    for function in (
        softmax_composition.attention,
        softmax_composition.gravitational_attention,
        linear_composition.residual_linear_attention,
        linear_composition.rattention,
    )
}

DOCUMENTATION = """`rattention.{name}` on tensors, differentiable in {differentiable}.

Arguments, shapes, errors and results are those on arrays, with tensors in the place of arrays. Tensors that
are not on the CPU are computed in plain PyTorch.

"""


def on_tensors(function: Callable[P, Any]) -> Callable[P, Any]:
    """The counterpart of a public function on arrays, with the same parameters."""
    signature = SIGNATURES[function]
    names = tuple(signature.defaults)
    by_position = names[: function.__code__.co_argcount]
    optional = {n: d for n, d in signature.defaults.items() if d is not signature.required}

    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        arguments = {**optional, **dict(zip(by_position, args, strict=False)), **kwargs}
        twice = any(name in kwargs for name in by_position[: len(args)])
        if twice or len(args) > len(by_position) or set(arguments) != set(names):
            signature.complain(*args, **kwargs)
        return _run(signature, arguments)

    call.__name__ = call.__qualname__ = signature.name
    call.__module__ = "rattention.torch"
    listing = ", ".join(signature.differentiable)
    head = DOCUMENTATION.format(name=signature.name, differentiable=listing)
    call.__doc__ = head + (function.__doc__ or "")
    call.__signature__ = signature.parameters  # type: ignore[attr-defined]
    return call


def attention_metrics(
    query: torch.Tensor, key: torch.Tensor, *, metrics: MetricOptions | None = None, **options: Any
) -> AttentionMetrics:
    """`rattention.attention_metrics` on CPU tensors; not differentiable.

    `options` are those of `attention` besides `return_lse`.

    >>> import torch
    >>> import rattention.torch as rt
    >>> query, key = torch.randn(2, 1, 4, 256, 32)
    >>> rt.attention_metrics(query, key, causal=True).entropy.shape
    torch.Size([1, 4, 256])
    """
    signature = SIGNATURES[attention]
    for name in options:
        if name == "return_lse" or name not in signature.defaults:
            raise TypeError(f"attention_metrics() got an unexpected keyword argument '{name}'")
    arguments = signature.defaults | options
    arguments |= {"query": query, "key": key, "value": key, "return_lse": False}
    require_tensors(arguments, ("query", "key"))
    arguments["value"] = key[..., :0]
    arguments["metrics"] = MetricOptions() if metrics is None else metrics
    return _run(signature, arguments).metrics  # type: ignore[no-any-return]


def _run(signature: Signature, arguments: dict[str, Any]) -> Any:
    is_softmax = signature.functions.family == "softmax"
    metrics: MetricOptions | None = arguments.pop("metrics", None)
    wants_lse = bool(arguments.pop("return_lse", False))
    inputs = _prepared(signature, arguments)
    if is_softmax:
        require_metric_options(metrics)
        inputs["return_lse"] = wants_lse or _will_be_differentiated(signature, inputs)
        inputs["metrics"] = None if metrics is None else _as_integers(metrics)
    else:
        inputs["return_state"] = bool(inputs["return_state"])
    if inputs["query"].device.type == "cpu":
        results = _operated(signature, inputs)
    else:
        results = _composed(signature, inputs)
    if not is_softmax:
        return (results[0], results[1]) if inputs["return_state"] else results[0]
    if metrics is None and not wants_lse:
        return results[0]
    measured = None if metrics is None else _metrics(results[3 if inputs["return_lse"] else 1 :], inputs)
    lse = results[1].to(torch.float32) if wants_lse else None
    return AttentionResult(results[0], lse, measured)  # type: ignore[arg-type]


def _will_be_differentiated(signature: Signature, inputs: dict[str, Any]) -> bool:
    given = (inputs[name] for name in signature.differentiable)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)


def _operated(signature: Signature, inputs: dict[str, Any]) -> list[torch.Tensor]:
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
    require_tensors(arguments, signature.of_query_dtype)
    for name in signature.of_query_dtype:
        arguments[name] = autocast(arguments[name])
    for argument in signature.functions.arguments:
        value = arguments[argument.name]
        if argument.kind == "per query" and isinstance(value, torch.Tensor) and value.dim() == 3:
            _require_per_query(argument.name, value, arguments["query"])
        elif argument.kind in ("per head", "per query") and value is not None:
            arguments[argument.name] = _per_head(argument.name, value, arguments["query"])
    require_tensors(arguments, signature.tensors)
    require_floats(arguments, signature.differentiable)
    require_one_dtype(arguments, signature.of_query_dtype)
    require_mask_dtypes(arguments)
    for name in signature.in_float32:
        if arguments[name] is not None:
            arguments[name] = arguments[name].to(torch.float32)
    if "causal" in arguments:
        arguments["causal"] = _flag("causal", arguments["causal"])
        if arguments["window"] is not None:
            bounds = window_bounds(arguments["window"], arguments["causal"])
            arguments["window"] = [-1 if reach is None else min(reach, 2**62) for reach in bounds]
    elif "window" in arguments:
        arguments["window"] = min(whole_number("window", arguments["window"]), 2**62)
    return arguments


def autocast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the dtype of autocast, where that is on."""
    device = tensor.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor


def _per_head(name: str, value: Any, query: torch.Tensor) -> torch.Tensor:
    """A number, or one per head, as ``[heads]``."""
    heads = query.shape[1] if query.dim() == 4 else 1
    if not isinstance(value, torch.Tensor):
        return torch.full((heads,), real_number(name, value), dtype=torch.float32, device=query.device)
    if value.dim() == 0:
        return value.expand(heads)
    if value.shape != (heads,):
        raise ValueError(f"{name} must be a number or one per head ({heads}), got shape {tuple(value.shape)}")
    return value


def _require_per_query(name: str, value: torch.Tensor, query: torch.Tensor) -> None:
    if query.dim() == 4 and value.shape != query.shape[:3]:
        raise ValueError(
            f"{name} must have shape {tuple(query.shape[:3])}, one per query, got {tuple(value.shape)}"
        )


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def _as_integers(metrics: MetricOptions) -> list[int]:
    return [min(metrics.local_radius, 2**62), min(metrics.long_range_distance, 2**62), int(metrics.received)]


def _composed(signature: Signature, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """Plain PyTorch, after the checks of shapes and numbers that the core would do."""
    query, key, value = (inputs[name] for name in ("query", "key", "value"))
    require_shapes(query, key, value)
    require_other_shapes(signature.functions, inputs)
    inputs.pop("return_lse", None)
    if inputs.pop("metrics", None) is not None:
        raise ValueError(
            f"metrics are measured on the CPU only, query is on {query.device}: move the tensors with .cpu()"
        )
    for name in ("scale", "eps", "rope_theta"):
        if inputs.get(name) is not None:
            number = real_number(name, inputs[name])
            if name != "scale" and number <= 0:
                raise ValueError(f"{name} must be > 0, got {inputs[name]!r}")
    if signature.functions.family == "linear":
        _require_linear(inputs, query, key)
    return COMPOSITIONS[signature.name](**inputs)


def _require_linear(inputs: dict[str, Any], query: torch.Tensor, key: torch.Tensor) -> None:
    if inputs["window"] < -1:
        raise ValueError(f"window must be >= -1, got {inputs['window']}")
    if inputs["feature_map"] not in FEATURE_MAPS:
        raise ValueError(
            f"feature_map must be one of {', '.join(FEATURE_MAPS)}, got {inputs['feature_map']!r}"
        )
    if query.shape[2] != key.shape[2]:
        raise ValueError(f"key has length {key.shape[2]}, query has {query.shape[2]}; they must be equal")


class _NotDifferentiable(torch.autograd.Function):
    """Metrics in a loss: an error in place of a gradient that is silently missing."""

    @staticmethod
    def forward(ctx: Any, measured: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        return measured.view_as(measured)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            "attention metrics are not differentiable: leave them out of the loss, or detach() them"
        )


def _metrics(measured: Sequence[torch.Tensor], inputs: dict[str, Any]) -> AttentionMetrics:
    results = [tensor.detach() for tensor in measured]
    if not torch.compiler.is_compiling():
        sources = [inputs["query"], inputs["key"]]
        results = [
            _NotDifferentiable.apply(t, *sources) if t.is_floating_point() else t  # type: ignore[no-untyped-call]
            for t in results
        ]
    named: dict[str, Any] = dict(zip(METRIC_NAMES, results, strict=False))
    return AttentionMetrics(**named)
