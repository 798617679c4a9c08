"""The schemas of the operations, made from the table of mechanisms and the signatures of its functions."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from rattention.mechanisms.table import MECHANISMS, Functions
from rattention.torch.results import RESULTS

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


class Signature:
    """The arguments of one set of functions, as an operation takes them: all by position, windows as pairs.

    The forward operation returns the output and what else is asked for, see `rattention.torch.results`; the
    backward operation the gradients of the differentiable arguments that are there. Plain attributes:
    compilers trace the code that reads them.
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
        self.differentiable = tuple(a.name for a in arguments if a.differentiable)
        self.of_query_dtype = tuple(a.name for a in arguments if {"query_length", "key_length"} & {*a.shape})
        """Arguments that share one dtype, that of the output; they are those with one row per position."""
        self.in_float32 = tuple(name for name in self.differentiable if name not in self.of_query_dtype)

    @property
    def forward_schema(self) -> str:
        """All arguments, in order, to the output and what follows it."""
        return f"({', '.join(f'{type_} {name}' for name, type_ in self.types.items())}) -> Tensor[]"

    @property
    def backward_schema(self) -> str:
        """Gradients of the first two results, what was saved, and the arguments of the forward operation."""
        results = "Tensor grad_output, Tensor? grad_second"
        saved = "".join(f", Tensor {name}" for name in self.results.saved)
        return f"({results}{saved}, {self.forward_schema[1:]}"


def _types(functions: Functions, defaults: dict[str, Any]) -> dict[str, str]:
    known = {argument.name: argument for argument in functions.arguments}
    types = {}
    for name, default in defaults.items():
        if name in known:
            types[name] = KIND_TYPES[known[name].kind] + ("?" if default is None else "")
        elif name in functions.masks:
            types[name] = MASK_TYPES[name]
    return types


def signatures() -> dict[Callable[..., Any], Signature]:
    """One per set of functions in the table, by the public function on arrays."""
    return {m.functions.forward: Signature(m.functions) for m in MECHANISMS.values()}
