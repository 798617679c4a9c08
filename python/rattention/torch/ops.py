"""The operations ``torch.ops.rattention.*``: functional, with shapes for tracing, gradients and vmap.

There are two per set of functions in the table of mechanisms, forward and backward. Both are opaque to
compilers; what they compute is in `rattention.torch.kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rattention.torch import kernels
from rattention.torch.checks import require_shapes
from rattention.torch.schema import Signature, signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

if torch.distributed.is_available():
    # Its functions have the default process group of this moment as default arguments. PyTorch imports it in
    # the first call of an operation; a group would then outlive destroy_process_group, and threads of gloo
    # that still run when the interpreter ends can abort it.
    import torch.distributed.nn.functional

NAMESPACE = "rattention"


def define(signature: Signature) -> Callable[..., list[torch.Tensor]]:
    """Register forward and backward of one set of functions; the forward operation."""
    name = f"{NAMESPACE}::{signature.name}"
    forward = torch.library.custom_op(
        name,
        lambda *values: kernels.forward(signature, values),
        mutates_args=(),
        device_types="cpu",
        schema=signature.forward_schema,
    )
    backward = torch.library.custom_op(
        f"{name}_backward",
        lambda *values: kernels.backward(signature, values),
        mutates_args=(),
        device_types="cpu",
        schema=signature.backward_schema,
    )
    forward.register_fake(lambda *values: _empty_results(signature, values))
    backward.register_fake(lambda *values: _empty_gradients(signature, values))
    operation, gradients = (
        getattr(torch.ops.rattention, n).default for n in (signature.name, f"{signature.name}_backward")
    )
    forward.register_autograd(_gradients_by(signature, gradients), setup_context=_saver(signature))
    backward.register_autograd(_refuse_second_derivative(signature), setup_context=_save_nothing)
    for op, overload in ((forward, operation), (backward, gradients)):
        op.register_vmap(_one_by_one(overload))
    return operation  # type: ignore[no-any-return]


def _empty_results(signature: Signature, values: Sequence[Any]) -> list[torch.Tensor]:
    arguments = dict(zip(signature.names, values, strict=True))
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    require_shapes(query, key, value)
    output = query.new_empty(*query.shape[:3], value.shape[3])
    return [output, *signature.results.empty(output, arguments)]


def _empty_gradients(signature: Signature, values: Sequence[Any]) -> list[torch.Tensor]:
    arguments = dict(zip(signature.names, values[2 + len(signature.results.saved) :], strict=True))
    given = (arguments[name] for name in signature.differentiable)
    return [t.new_empty(t.shape) for t in given if t is not None]


def _saver(signature: Signature) -> Callable[..., None]:
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[torch.Tensor]) -> None:
        ctx.set_materialize_grads(False)
        arguments = dict(zip(signature.names, inputs, strict=True))
        tensors = [arguments.pop(name) for name in signature.tensors]
        ctx.save_for_backward(*output[: len(signature.results.saved)], *tensors)
        ctx.numbers = arguments
        ctx.output_shape = output[0].shape

    return setup_context


def _gradients_by(signature: Signature, operation: Callable[..., list[torch.Tensor]]) -> Callable[..., Any]:
    count = len(signature.results.saved)

    def backward(ctx: Any, grads: Sequence[torch.Tensor | None]) -> Any:
        saved = ctx.saved_tensors
        tensors = dict(zip(signature.tensors, saved[count:], strict=True))
        arguments = tensors | ctx.numbers
        grad_output, grad_second = grads[0], (grads[1] if len(grads) > 1 else None)
        if grad_output is None and grad_second is None:
            return (None,) * len(signature.names)
        if grad_output is None:
            grad_output = tensors["query"].new_zeros(ctx.output_shape)
        inputs = [arguments[name] for name in signature.names]
        results = iter(operation(grad_output, grad_second, *saved[:count], *inputs))
        present = [name for name in signature.differentiable if arguments[name] is not None]
        gradients = dict(zip(present, results, strict=True))
        return tuple(gradients.get(name) for name in signature.names)

    return backward


def _save_nothing(ctx: Any, inputs: Sequence[Any], output: Sequence[torch.Tensor]) -> None:
    pass


def _refuse_second_derivative(signature: Signature) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            f"rattention.torch.{signature.name} has first derivatives only: its backward pass cannot be "
            "differentiated (double backward, create_graph=True)"
        )

    return backward


def _one_by_one(operation: Callable[..., list[torch.Tensor]]) -> Callable[..., Any]:
    """A vmap rule: kernels are parallel inside, and arguments per head have no batch to fold into."""

    def rule(info: Any, in_dims: Sequence[Any], *values: Any) -> Any:
        results = [
            operation(
                *(
                    value.select(dim, i) if isinstance(value, torch.Tensor) and dim is not None else value
                    for value, dim in zip(values, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        stacked = [torch.stack(parts) for parts in zip(*results, strict=True)]
        return stacked, [0] * len(stacked)

    return rule


SIGNATURES = signatures()
OPERATIONS = {function: define(signature) for function, signature in SIGNATURES.items()}
"""The forward operations, by the public function on arrays."""
