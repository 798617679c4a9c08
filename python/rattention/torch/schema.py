"""The schemas of the operations, made from the table of mechanisms and the signatures of its functions."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rattention._metrics import AttentionMetrics
from rattention.mechanisms.table import MECHANISMS, Functions

if TYPE_CHECKING:
    from collections.abc import Callable

MASK_TYPES = {
    "causal": "bool",
    "window": "SymInt[]?",
    "key_mask": "Tensor?",
    "segment_ids": "Tensor?",
    "attn_mask": "Tensor?",
    "query_offset": "SymInt?",
}
KIND_TYPES = {
    "array": "Tensor",
    "per head": "Tensor",
    "per query": "Tensor",
    "number": "float",
    "integer": "SymInt",
    "choice": "str",
}
EXTRAS = {
    "softmax": {"return_lse": "bool", "metrics": "SymInt[]?"},
    "linear": {"return_state": "bool"},
}
"""What is asked for besides the output. `return_lse` brings what the backward pass needs: the log of the
denominator in float64, and what rounding took from an output of 16 bits (no elements for float32). Metrics as
[local_radius, long_range_distance, received]."""

METRIC_NAMES = tuple(field.name for field in fields(AttentionMetrics))


class Signature:
    """The arguments of one set of functions, as an operation takes them: all by position, windows as pairs.

    The forward operation returns the output and, in the softmax family, lse and metrics; in the linear
    family the state where it is asked for. The backward operation returns the gradients of the
    differentiable arguments that are there. Plain attributes: compilers trace the code that reads them.
    """

    required = inspect.Parameter.empty
    """The default of a parameter that must be given."""

    def __init__(self, functions: Functions) -> None:
        """Of one set of functions in the table."""
        arguments = functions.arguments
        self.functions = functions
        self.name = functions.forward.__name__
        self.parameters = inspect.signature(functions.forward)
        self.defaults = {name: p.default for name, p in self.parameters.parameters.items()}
        self.types = _types(functions, self.defaults)
        self.names = tuple(self.types)
        self.tensors = tuple(name for name, type_ in self.types.items() if type_.startswith("Tensor"))
        self.differentiable = tuple(a.name for a in arguments if a.differentiable)
        self.of_query_dtype = tuple(a.name for a in arguments if {"query_length", "key_length"} & {*a.shape})
        """Arguments that share one dtype, that of the output; they are those with one row per position."""
        self.in_float32 = tuple(name for name in self.differentiable if name not in self.of_query_dtype)
        self.saved = ("output", "lse", "rest") if functions.family == "softmax" else ()
        """Results of the forward pass that the backward pass takes."""

    @property
    def forward_schema(self) -> str:
        """Of the operation."""
        return f"({', '.join(f'{type_} {name}' for name, type_ in self.types.items())}) -> Tensor[]"

    @property
    def backward_schema(self) -> str:
        """Gradients of the first two results, what was saved, and the arguments of the forward operation."""
        results = "Tensor grad_output, Tensor? grad_second"
        saved = "".join(f", Tensor {name}" for name in self.saved)
        return f"({results}{saved}, {self.forward_schema[1:]}"

    def complain(self, *args: Any, **kwargs: Any) -> None:
        """Raise the TypeError of a call whose arguments do not fit the parameters."""
        try:
            self.parameters.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None


def _types(functions: Functions, defaults: dict[str, Any]) -> dict[str, str]:
    known = {argument.name: argument for argument in functions.arguments}
    types = {}
    for name, default in defaults.items():
        if name in known:
            types[name] = KIND_TYPES[known[name].kind] + ("?" if default is None else "")
        elif name in functions.masks:
            types[name] = MASK_TYPES[name]
    return types | EXTRAS[functions.family]


def signatures() -> dict[Callable[..., Any], Signature]:
    """One per set of functions in the table, by the public function on arrays."""
    return {m.functions.forward: Signature(m.functions) for m in MECHANISMS.values()}
