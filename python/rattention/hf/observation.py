"""Metrics of every attention layer of a model while it runs, without a stored map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from rattention._metrics import ROW_METRICS, MetricOptions
from rattention.hf.attention import attend, attends_causally
from rattention.hf.layers import chosen_layers
from rattention.hf.listening import attention_modules, listening
from rattention.hf.record import Observation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METRICS = (*ROW_METRICS, "received")


@contextmanager
def observe(
    model: PreTrainedModel,
    *,
    metrics: str | Iterable[str] | None = None,
    layers: int | Iterable[int] | None = None,
    options: MetricOptions | None = None,
) -> Iterator[Observation]:
    """Measure the attention of `model` in every forward pass within the ``with`` block.

    Memory is one number per metric, layer, head and token, so that contexts can be observed whose maps would
    not fit. The model computes the same outputs as before, and is restored at the end, also after an
    exception.

    Parameters
    ----------
    model:
        Of Transformers, on the CPU, whose layers take their attention from ``AttentionInterface``.
    metrics:
        Names of fields of `AttentionMetrics`, one or several; by default all with one number per token.
        ``"received"``, one number per key, costs a second sweep and is measured only where it is named.
    layers:
        Which attention layers, counted from 0 in the order of the model's modules; all by default.
    options:
        Distances of the metrics.

    Yields
    ------
    An `Observation`, which fills as the model runs and can be read at any time.

    Raises
    ------
    TypeError
        `model` is none of Transformers, or arguments of other kinds.
    ValueError
        Unknown metrics or layers, or a model without attention layers that can be observed.
    RuntimeError
        The model, or a part of it, is being observed already.

    Notes
    -----
    What ``"rattention"`` refuses is refused here (see `rattention.hf.register`). Metrics are not
    differentiable, the outputs are. Rows of padding, and rows that may attend to nothing, are NaN, their
    ``max_position`` is -1: means leave them out. Where a cache
    keeps a sliding window alone, ``max_position`` and ``received`` count from the first key that it keeps.
    A module that several layers share (ALBERT's) begins a pass with each call.

    >>> import torch, rattention
    >>> from transformers import BertConfig, BertModel
    >>> model = BertModel(BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2,
    ...                              num_attention_heads=4, intermediate_size=64)).eval()
    >>> with rattention.observe(model) as seen:
    ...     _ = model(torch.arange(12)[None])
    >>> seen["entropy"].shape  # layers, batch, heads, tokens
    (2, 1, 4, 12)
    """
    names, measured = _chosen_metrics(metrics, options)
    modules = attention_modules(model)
    chosen = chosen_layers(layers, range(len(modules)))
    observation = Observation(tuple(modules), chosen, names)
    observer = _Observer(observation, measured, [*modules.values()], model.config.is_encoder_decoder)
    with listening(model, observer):
        yield observation


class _Observer:
    """What to measure in which module, and where to put it."""

    def __init__(
        self,
        observation: Observation,
        options: MetricOptions,
        modules: list[torch.nn.Module],
        two_sided: bool,
    ) -> None:
        self.observation = observation
        self.options = options
        self.two_sided = two_sided
        """A decoder attends to an encoder: masks of keys are not always those of queries."""
        wanted = {index: modules[index] for index in observation.layers}
        self.layers = WeakKeyDictionary({module: index for index, module in wanted.items()})

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        arguments: dict[str, Any],
        /,
    ) -> torch.Tensor:
        """The layer's output, measured where it was asked for."""
        layer = self.layers.get(module)
        if layer is None:
            return attend(module, query, key, value, mask, **arguments)  # type: ignore[no-any-return]
        result = attend(module, query, key, value, mask, metrics=self.options, **arguments)
        shown = None
        if not self.two_sided or attends_causally(module, arguments.get("is_causal")):
            shown = _shown_rows(mask, query.shape[2], key.shape[2])
        self.observation.add(layer, _arrays(result.metrics, self.observation.names, shown))
        return result.output  # type: ignore[no-any-return]


def _shown_rows(mask: torch.Tensor | None, rows: int, keys: int) -> torch.Tensor | None:
    """Which rows are no padding, ``[batch, rows]``; None where none are."""
    if mask is None or mask.dtype != torch.bool or mask.dim() != 2 or rows > keys:
        return None
    return mask[:, -rows:]


def _arrays(metrics: Any, names: tuple[str, ...], shown: torch.Tensor | None) -> dict[str, Any]:
    left_out = metrics.empty_rows if shown is None else metrics.empty_rows | ~shown[:, None]
    arrays = {}
    for name, values in metrics:
        if name in names:
            kept = values.detach()
            if name != "received":
                kept = kept.masked_fill(left_out, float("nan") if kept.is_floating_point() else -1)
            arrays[name] = kept.numpy()
    return arrays


def _chosen_metrics(
    metrics: str | Iterable[str] | None, options: MetricOptions | None
) -> tuple[tuple[str, ...], MetricOptions]:
    if options is not None and not isinstance(options, MetricOptions):
        raise TypeError(f"options must be a MetricOptions or None, got {type(options).__name__}")
    if metrics is not None and not isinstance(metrics, Iterable):
        raise TypeError(f"metrics must be names of metrics, got {type(metrics).__name__}")
    asked = ROW_METRICS if metrics is None else (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [name for name in asked if name not in METRICS]
    if unknown or not asked:
        raise ValueError(f"metrics must be some of {', '.join(METRICS)}; got {asked!r}")
    names = tuple(name for name in METRICS if name in asked)
    return names, replace(options or MetricOptions(), received="received" in names)
