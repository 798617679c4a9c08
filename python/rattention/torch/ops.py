"""The operations ``torch.ops.rattention.*``: functional, with shapes for tracing, gradients and vmap.

There are two per set of functions in the table of mechanisms, forward and backward, both opaque to compilers.
Their schemas follow from the table and the signatures of its functions.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rattention._metrics import MetricOptions
from rattention.mechanisms.row import Functions
from rattention.mechanisms.table import MECHANISMS
from rattention.torch.checks import as_array, as_tensor, require_shapes
from rattention.torch.results import RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Operation = Callable[..., list[Tensor]]

if torch.distributed.is_available():
    # The module stores the default process group at its import in default arguments. PyTorch imports it on
    # the first call of an operation; a group that exists by then would outlive destroy_process_group, and
    # gloo threads still running at exit can abort the interpreter.
    import torch.distributed.nn.functional

NAMESPACE = "rattention"


MASK_TYPES = {
    "causal": "bool",
    "window": "SymInt[]?",
    "key_mask": "Tensor?",
    "segment_ids": "Tensor?",
    "attn_mask": "Tensor?",
    "query_offset": "SymInt?",
    "block_ids": "Tensor?",
    "cu_seqlens": "Tensor?",
}
KIND_TYPES = {
    "array": "Tensor",
    "per head": "Tensor",
    "per query": "Tensor",
    "number": "float",
    "integer": "SymInt",
    "flag": "bool",
    "choice": "str",
    "table": "Tensor",
}


class Signature:
    """The arguments of one set of functions, as an operation takes them: all by position, windows as pairs.

    The forward operation returns the output and any other results requested (see `rattention.torch.results`);
    the backward operation returns the gradients of the differentiable arguments that were given. Attributes
    are plain because compilers trace the code that reads them.
    """

    def __init__(self, functions: Functions) -> None:
        arguments = functions.arguments
        self.functions = functions
        self.results = RESULTS[functions.family]
        self.name = functions.forward.__name__
        parameters = inspect.signature(functions.forward).parameters
        defaults = {name: p.default for name, p in parameters.items()}
        self.parameters = {*defaults}
        self.defaults = {n: d for n, d in defaults.items() if d is not inspect.Parameter.empty}
        self.types = _types(functions, defaults) | self.results.flags
        self.names = tuple(self.types)
        self.tensors = tuple(name for name, type_ in self.types.items() if type_.startswith("Tensor"))
        self.needed = tuple(name for name in self.tensors if name not in self.defaults)
        tables = {a.name for a in arguments if a.kind == "table"}
        self.on_one_device = tuple(name for name in self.tensors if name not in tables)
        self.differentiable = tuple(a.name for a in arguments if a.differentiable)
        self.of_query_dtype = tuple(a.name for a in arguments if {"query_length", "key_length"} & {*a.shape})
        """Arguments that share one dtype, that of the output; they are those with one row per position."""
        self.has_dense_mask = "attn_mask" in functions.masks
        """One that is differentiable where it asks for a gradient."""
        self.in_float32 = tuple(name for name in self.differentiable if name not in self.of_query_dtype)

    @property
    def forward_schema(self) -> str:
        """All arguments, in order, to the output and what follows it."""
        return f"({', '.join(f'{type_} {name}' for name, type_ in self.types.items())}) -> Tensor[]"

    @property
    def backward_schema(self) -> str:
        """Gradients of the first two results, what was saved, the arguments of the forward operation, and
        whether the gradient of a dense mask is wanted."""
        results = "Tensor grad_output, Tensor? grad_second"
        saved = "".join(f", Tensor {name}" for name in self.results.saved)
        arguments, returned = self.forward_schema[1:].split(")", 1)
        return f"({results}{saved}, {arguments}, bool of_mask){returned}"

    def gradients_of(self, arguments: dict[str, Any], of_mask: bool) -> list[str]:
        """The arguments whose gradients the backward operation returns, in order."""
        given = [name for name in self.differentiable if arguments[name] is not None]
        return [*given, "attn_mask"] if of_mask else given


def _types(functions: Functions, defaults: dict[str, Any]) -> dict[str, str]:
    known = {argument.name: argument for argument in functions.arguments}
    types = {}
    for name, default in defaults.items():
        if name in known:
            types[name] = KIND_TYPES[known[name].kind] + ("?" if default is None else "")
        elif name in functions.masks:
            types[name] = MASK_TYPES[name]
    return types


def define(signature: Signature) -> Operation:
    """Register forward and backward of one set of functions; the forward operation."""
    forward, backward = (
        torch.library.custom_op(
            f"{NAMESPACE}::{name}",
            partial(run, signature),
            mutates_args=(),
            device_types="cpu",
            schema=schema,
        )
        for name, run, schema in (
            (signature.name, run_forward, signature.forward_schema),
            (f"{signature.name}_backward", _run_backward, signature.backward_schema),
        )
    )
    forward.register_fake(partial(_empty_results, signature))
    backward.register_fake(partial(_empty_gradients, signature))
    operation, gradients = (
        getattr(torch.ops.rattention, n).default for n in (signature.name, f"{signature.name}_backward")
    )
    forward.register_autograd(
        partial(_gradients, signature, gradients), setup_context=partial(_save, signature)
    )
    backward.register_autograd(partial(_refuse_second_derivative, signature))
    forward.register_vmap(partial(_one_by_one, operation))
    backward.register_vmap(partial(_one_by_one, gradients))
    return operation  # type: ignore[no-any-return]


def run_forward(signature: Signature, *values: Any) -> list[Tensor]:
    """The results, in the order of the operation."""
    result = signature.results.run(signature.functions, _on_arrays(signature, values))
    return [as_tensor(array) for array in signature.results.arrays(result)]


def _run_backward(signature: Signature, *values: Any) -> list[Tensor]:
    """The gradients, each in its argument's dtype."""
    grad_output, grad_second, *rest, of_mask = values
    count = len(signature.results.saved)
    arguments = _on_arrays(signature, rest[count:])
    for flag in signature.results.flags:
        del arguments[flag]
    second = None if grad_second is None else as_array(grad_second.to(torch.float32))
    given = signature.results.for_backward(signature.functions, rest[:count], second, arguments)
    if signature.has_dense_mask:
        given["of_mask"] = of_mask
    gradients = signature.functions.backward(as_array(grad_output), **arguments, **given)
    tensors = dict(zip(signature.names, rest[count:], strict=True))
    return [
        as_tensor(gradients[name]).to(tensors[name].dtype)
        for name in signature.gradients_of(tensors, of_mask)
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


def _empty_results(signature: Signature, *values: Any) -> list[Tensor]:
    arguments = dict(zip(signature.names, values, strict=True))
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    require_shapes(query, key, value)
    output = query.new_empty(*query.shape[:3], value.shape[3])
    return [output, *signature.results.empty(signature.functions, output, arguments)]


def _empty_gradients(signature: Signature, *values: Any) -> list[Tensor]:
    arguments = dict(zip(signature.names, values[2 + len(signature.results.saved) : -1], strict=True))
    given = (arguments[name] for name in signature.gradients_of(arguments, values[-1]))
    return [t.new_empty(t.shape) for t in given]


def _save(signature: Signature, ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    ctx.set_materialize_grads(False)
    arguments = dict(zip(signature.names, inputs, strict=True))
    tensors = [arguments.pop(name) for name in signature.tensors]
    ctx.save_for_backward(*signature.results.to_save(output, arguments), *tensors)
    ctx.numbers = arguments
    ctx.output_shape = output[0].shape


def _gradients(signature: Signature, operation: Operation, ctx: Any, grads: Sequence[Tensor | None]) -> Any:
    saved, count = ctx.saved_tensors, len(signature.results.saved)
    tensors = dict(zip(signature.tensors, saved[count:], strict=True))
    arguments = tensors | ctx.numbers
    grad_output, grad_second = grads[0], (grads[1] if len(grads) > 1 else None)
    if grad_output is None and grad_second is None:
        return (None,) * len(signature.names)
    if grad_output is None:
        grad_output = tensors["query"].new_zeros(ctx.output_shape)
    inputs = [arguments[name] for name in signature.names]
    of_mask = signature.has_dense_mask and ctx.needs_input_grad[signature.names.index("attn_mask")]
    results = operation(grad_output, grad_second, *saved[:count], *inputs, of_mask)
    gradients = dict(zip(signature.gradients_of(arguments, of_mask), results, strict=True))
    return tuple(gradients.get(name) for name in signature.names)


def _refuse_second_derivative(signature: Signature, ctx: Any, *grads: Any) -> Any:
    raise NotImplementedError(
        f"rattention.torch.{signature.name} has first derivatives only: its backward pass cannot be "
        "differentiated (double backward, create_graph=True)"
    )


def _one_by_one(operation: Operation, info: Any, in_dims: Sequence[Any], *values: Any) -> Any:
    """A vmap rule: kernels are parallel inside, and arguments per head have no batch to fold into."""
    results = [
        operation(
            *(
                value.select(dim, i) if isinstance(value, Tensor) and dim is not None else value
                for value, dim in zip(values, in_dims, strict=True)
            )
        )
        for i in range(info.batch_size)
    ]
    stacked = [torch.stack(parts) for parts in zip(*results, strict=True)]
    return stacked, [0] * len(stacked)


SIGNATURES = {m.functions.forward: Signature(m.functions) for m in MECHANISMS.values()}
"""One per set of functions in the table, by the public function on arrays."""
OPERATIONS = {function: define(signature) for function, signature in SIGNATURES.items()}
"""The forward operations, by the public function on arrays."""
