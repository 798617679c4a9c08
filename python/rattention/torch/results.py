"""What the operations of a family take and return besides the output: one class per family of mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rattention._arguments import truth
from rattention._metrics import ROW_METRICS, AttentionMetrics, MetricOptions
from rattention.mechanisms.gates import require_whole_past
from rattention.mechanisms.residual_linear import feature_map_name
from rattention.mechanisms.results import AttentionResult, LinearResult
from rattention.mechanisms.row import LinearFunctions
from rattention.mechanisms.softmax_family import require_metric_options
from rattention.torch.checks import as_array, as_tensor, features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rattention.mechanisms.row import Functions

Arguments = dict[str, Any]


class SoftmaxResults:
    """Lse and metrics. `return_lse` brings what the backward pass needs: the log of the denominator in
    float64, and what rounding took from an output of 16 bits (no elements for float32). Metrics are asked for
    as [local_radius, long_range_distance, received]."""

    flags: ClassVar = {"return_lse": "bool", "metrics": "SymInt[]?"}
    """What an operation takes to say what it returns, with the types of its schema."""
    saved: ClassVar[tuple[str, ...]] = ("output", "lse", "rest")
    """Results of the forward pass that the backward pass takes."""

    def run(self, functions: Functions, arguments: Arguments) -> Any:
        """The forward pass on arrays."""
        return functions.forward(**arguments)

    def asked(self, wanted: Arguments, differentiated: bool) -> Arguments:
        """The flags of the operation for those of the public function."""
        metrics = wanted["metrics"]
        require_metric_options(metrics)
        return {
            "return_lse": truth("return_lse", wanted["return_lse"]) or differentiated,
            "metrics": None if metrics is None else _as_integers(metrics),
        }

    def returned(self, made: Sequence[Tensor], wanted: Arguments, inputs: Arguments) -> Any:
        """What the public function returns of what the operation does."""
        if wanted["metrics"] is None and not wanted["return_lse"]:
            return made[0]
        lse = made[1].to(torch.float32) if wanted["return_lse"] else None
        measured = None
        if wanted["metrics"] is not None:
            measured = _metrics(made[3 if inputs["return_lse"] else 1 :], inputs)
        return AttentionResult(made[0], lse, measured)

    def require_beside_cpu(self, inputs: Arguments) -> None:
        """Refuse what plain PyTorch does not do; take out the flags, of which it has none."""
        del inputs["return_lse"]
        if inputs.pop("metrics") is not None:
            raise ValueError(
                f"metrics are measured on the CPU only, query is on {inputs['query'].device}: "
                "move the tensors with .cpu()"
            )

    def empty(self, functions: Functions, output: Tensor, arguments: Arguments) -> list[Tensor]:
        """Tensors like those that follow the output."""
        saved = []
        if arguments["return_lse"]:
            rest = output.new_empty(0) if output.dtype == torch.float32 else torch.empty_like(output)
            saved = [output.new_empty(output.shape[:3], dtype=torch.float64), rest]
        numbers = output.new_empty(output.shape[:3], dtype=torch.float32)
        return [*saved, *_empty_metrics(arguments["metrics"], numbers, arguments["key"].shape[2])]

    def arrays(self, result: Any) -> list[NDArray[Any]]:
        """Those of the function on arrays, in the order of the operation."""
        if not isinstance(result, AttentionResult):
            return [result]
        arrays = [result.output]
        if result.exact_lse is not None:
            rest = np.empty(0, np.float32) if result.output_rest is None else result.output_rest
            arrays += [result.exact_lse, rest]
        return arrays + ([] if result.metrics is None else [array for _, array in result.metrics])

    def to_save(self, made: Sequence[Tensor], arguments: Arguments) -> list[Tensor]:
        """What `saved` names, of what the operation does; empty where it was not asked for, which happens
        where wrapped or sample tensors hide that they ask for gradients."""
        if arguments["return_lse"]:
            return list(made[:3])
        return [made[0], made[0].new_empty(0, dtype=torch.float64), made[0].new_empty(0)]

    def for_backward(
        self, functions: Functions, saved: Sequence[Tensor], second: NDArray[Any] | None, arguments: Arguments
    ) -> Arguments:
        """What the backward function on arrays takes besides the arguments of the forward pass."""
        if saved[1].dim() != 3:
            result = functions.forward(**arguments, return_lse=True)
            saved = [as_tensor(array) for array in self.arrays(result)]
        output, lse, rest = (as_array(tensor) for tensor in saved)
        result = AttentionResult.of(output, lse, rest if rest.ndim == 4 else None, None)
        return {"grad_lse": second, "result": result}


class LinearResults:
    """The state. With `keep`, also what the backward pass would compute again, as one row of words."""

    flags: ClassVar = {"return_state": "bool", "keep": "bool"}
    saved: ClassVar[tuple[str, ...]] = ("kept",)

    def run(self, functions: Functions, arguments: Arguments) -> Any:
        """The forward pass on arrays."""
        if not arguments.pop("keep"):
            return functions.forward(**arguments)
        assert isinstance(functions, LinearFunctions)
        return functions.keeping(**{n: value for n, value in arguments.items() if n != "return_state"})

    def asked(self, wanted: Arguments, differentiated: bool) -> Arguments:
        """The flags of the operation for those of the public function."""
        return {"return_state": truth("return_state", wanted["return_state"]), "keep": differentiated}

    def returned(self, made: Sequence[Tensor], wanted: Arguments, inputs: Arguments) -> Any:
        """What the public function returns of what the operation does."""
        return LinearResult(made[0], made[1]) if wanted["return_state"] else made[0]

    def require_beside_cpu(self, inputs: Arguments) -> None:
        """Refuse what the core would refuse; take out the flag that plain PyTorch has no use for."""
        del inputs["keep"]
        rows, keys = inputs["query"].shape[2], inputs["key"].shape[2]
        if inputs.get("window", -1) < -1:
            raise ValueError(f"window must be >= -1, got {inputs['window']}")
        if inputs.get("feature_map") is not None or "log_gate" not in inputs:
            feature_map_name(inputs["feature_map"])
        if "window" in inputs and "log_gate" in inputs and inputs["log_gate"].dim() == 4:
            require_whole_past(inputs["window"], inputs["feature_map"])
        if rows != keys:
            raise ValueError(f"key has length {keys}, query has {rows}; they must be equal")

    def empty(self, functions: Functions, output: Tensor, arguments: Arguments) -> list[Tensor]:
        """Tensors like those that follow the output."""
        if not arguments["return_state"] and not arguments["keep"]:
            return []
        assert isinstance(functions, LinearFunctions)
        query, key, start = arguments["query"], arguments["key"], arguments["initial_state"]
        heads = functions.state_heads(query.shape, key.shape) if start is None else start.shape[1]
        shape = (query.shape[0], heads, features(query, arguments.get("feature_map")), output.shape[3])
        state = output.new_empty(shape, dtype=torch.float32)
        if not arguments["keep"]:
            return [state]
        return [state, output.new_empty(functions.numbers_kept(arguments), dtype=torch.int32)]

    def arrays(self, result: Any) -> list[NDArray[Any]]:
        """Those of the function on arrays, in the order of the operation."""
        if not isinstance(result, LinearResult):
            return [result]
        return [*result] if result.kept is None else [*result, result.kept]

    def to_save(self, made: Sequence[Tensor], arguments: Arguments) -> list[Tensor]:
        """What `saved` names; empty where it was not asked for, see `SoftmaxResults.to_save`."""
        return [made[2] if arguments["keep"] else made[0].new_empty(0, dtype=torch.int32)]

    def for_backward(
        self, functions: Functions, saved: Sequence[Tensor], second: NDArray[Any] | None, arguments: Arguments
    ) -> Arguments:
        """What the backward function on arrays takes besides the arguments of the forward pass."""
        assert isinstance(functions, LinearFunctions)
        kept = as_array(saved[0])
        whole = kept.size == functions.numbers_kept(arguments)
        return {"grad_state": second, "kept": kept if whole else None}


RESULTS: dict[str, SoftmaxResults | LinearResults] = {
    "softmax": SoftmaxResults(),
    "linear": LinearResults(),
}
"""By family."""


def _as_integers(metrics: MetricOptions) -> list[int]:
    return [min(metrics.local_radius, 2**62), min(metrics.long_range_distance, 2**62), int(metrics.received)]


def _empty_metrics(metrics: Sequence[int] | None, rows: Tensor, keys: int) -> list[Tensor]:
    if metrics is None:
        return []
    dtypes = (torch.int64 if name == "max_position" else None for name in ROW_METRICS)
    received = [rows.new_empty((*rows.shape[:2], keys))] if metrics[2] else []
    return [*(torch.empty_like(rows, dtype=dtype) for dtype in dtypes), *received]


class _NotDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, measured: Tensor, *inputs: Tensor) -> Tensor:
        return measured.view_as(measured)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            "attention metrics are not differentiable, nor are rows and maps: leave them out of the loss, "
            "or detach() them"
        )


def not_differentiable(measured: Tensor, *inputs: Tensor) -> Tensor:
    """`measured`, so that a backward pass through it raises an error instead of silently omitting the
    gradients of `inputs`."""
    if torch.compiler.is_compiling() or not measured.is_floating_point():
        return measured
    result: Tensor = _NotDifferentiable.apply(measured, *inputs)  # type: ignore[no-untyped-call]
    return result


def _metrics(measured: Sequence[Tensor], inputs: Arguments) -> AttentionMetrics[Tensor]:
    results = [not_differentiable(t.detach(), inputs["query"], inputs["key"]) for t in measured]
    return AttentionMetrics(**dict(zip((*ROW_METRICS, "received"), results, strict=False)))
