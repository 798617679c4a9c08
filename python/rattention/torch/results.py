"""What the operations of a family take and return besides the output: one class per family of mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rattention._metrics import ROW_METRICS, AttentionMetrics, MetricOptions
from rattention.mechanisms.residual_linear import feature_map_name
from rattention.mechanisms.results import AttentionResult, LinearResult
from rattention.mechanisms.softmax_family import require_metric_options
from rattention.torch.checks import as_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Arguments = dict[str, Any]


class SoftmaxResults:
    """Lse and metrics. `return_lse` brings what the backward pass needs: the log of the denominator in
    float64, and what rounding took from an output of 16 bits (no elements for float32). Metrics are asked for
    as [local_radius, long_range_distance, received]."""

    flags: ClassVar = {"return_lse": "bool", "metrics": "SymInt[]?"}
    """What an operation takes to say what it returns, with the types of its schema."""
    saved: ClassVar[tuple[str, ...]] = ("output", "lse", "rest")
    """Results of the forward pass that the backward pass takes."""

    def asked(self, wanted: Arguments, differentiated: bool) -> Arguments:
        """The flags of the operation for those of the public function."""
        metrics = wanted["metrics"]
        require_metric_options(metrics)
        return {
            "return_lse": bool(wanted["return_lse"]) or differentiated,
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

    def empty(self, output: Tensor, arguments: Arguments) -> list[Tensor]:
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

    def for_backward(self, saved: Sequence[Tensor], grad_second: NDArray[Any] | None) -> Arguments:
        """What the backward function on arrays takes besides the arguments of the forward pass."""
        output, lse, rest = (as_array(tensor) for tensor in saved)
        result = AttentionResult.of(output, lse, rest if rest.ndim == 4 else None, None)
        return {"grad_lse": grad_second, "result": result}


class LinearResults:
    """The state."""

    flags: ClassVar = {"return_state": "bool"}
    saved: ClassVar[tuple[str, ...]] = ()

    def asked(self, wanted: Arguments, differentiated: bool) -> Arguments:
        """The flag, which is the public function's."""
        return {"return_state": bool(wanted["return_state"])}

    def returned(self, made: Sequence[Tensor], wanted: Arguments, inputs: Arguments) -> Any:
        """What the public function returns of what the operation does."""
        return LinearResult(made[0], made[1]) if inputs["return_state"] else made[0]

    def require_beside_cpu(self, inputs: Arguments) -> None:
        """Refuse what the core would refuse."""
        rows, keys = inputs["query"].shape[2], inputs["key"].shape[2]
        if inputs["window"] < -1:
            raise ValueError(f"window must be >= -1, got {inputs['window']}")
        feature_map_name(inputs["feature_map"])
        if rows != keys:
            raise ValueError(f"key has length {keys}, query has {rows}; they must be equal")

    def empty(self, output: Tensor, arguments: Arguments) -> list[Tensor]:
        """A tensor like the state."""
        if not arguments["return_state"]:
            return []
        query, start = arguments["query"], arguments["initial_state"]
        heads = arguments["key"].shape[1] if start is None else start.shape[1]
        shape = (query.shape[0], heads, 2 * query.shape[3], output.shape[3])
        return [output.new_empty(shape, dtype=torch.float32)]

    def arrays(self, result: Any) -> list[NDArray[Any]]:
        """Those of the function on arrays, in the order of the operation."""
        return list(result) if isinstance(result, LinearResult) else [result]

    def for_backward(self, saved: Sequence[Tensor], grad_second: NDArray[Any] | None) -> Arguments:
        """What the backward function on arrays takes besides the arguments of the forward pass."""
        return {"grad_state": grad_second}


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
