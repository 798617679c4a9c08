"""`rattention.observe`: metrics of every attention layer of a model while it runs, without a stored map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention import plots
from rattention._arguments import chosen_numbers, fields_in_brief
from rattention._extras import require
from rattention._metrics import ROW_METRICS, MetricOptions
from rattention.inspect.hooks import attention_layers, visiting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame

    from rattention._metrics import AttentionMetrics
    from rattention.inspect.hooks import LayerAttention

METRICS = (*ROW_METRICS, "received")
PER_KEY = ("received",)
_EACH = "read them one by one from .passes"
_SHARED = "as in models whose modules attend several times (ALBERT's shared ones, DiffLlama's)"
PANELS = ("entropy", "local_concentration", "long_range", "retention")
"""What `Observation.figure` shows where it was measured."""


@dataclass(eq=False, repr=False)
class Pass:
    """The metrics of one forward pass: ``this.entropy`` is ``[layers, batch, heads, tokens]``.

    In generation the first pass holds the prompt, and each later one a token.
    """

    names: tuple[str, ...]
    layers: dict[int, dict[str, NDArray[Any]]] = field(default_factory=dict)
    """By layer and name, ``[batch, heads, tokens]``; received is ``[batch, heads, keys]``."""

    def __getattr__(self, name: str) -> NDArray[Any]:
        """A metric of all layers that were called; ValueError where their lengths differ (see `layers`)."""
        _require_measured(self, name)
        arrays = [self.layers[layer][name] for layer in sorted(self.layers)]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"{name} has different shapes in the layers of this pass, {sorted(shapes)}: read them one "
                "by one from .layers"
            )
        return np.stack(arrays)


@dataclass(eq=False, repr=False)
class Observation:
    """The metrics of a model's attention, as `observe` measured them.

    ``this.entropy`` is a float32 array ``[layers, batch, heads, tokens]``, and so is each metric in `names`;
    the tokens of all forward passes follow one another, so that after a generation there is one number for
    each token of the prompt and each generated one but the last, which the model has not read.

    AttributeError says that a metric was not measured, ValueError that no pass was observed, or passes that
    cannot be joined: read `passes` one by one.
    """

    modules: tuple[str, ...]
    """Names of the model's attention modules, in the order in which layers are counted."""
    layers: tuple[int, ...]
    """The layers observed."""
    names: tuple[str, ...]
    """The metrics measured."""
    passes: list[Pass] = field(default_factory=list)
    """What each forward pass gave. A pass ends when a layer is called again."""

    def __repr__(self) -> str:
        return f"{fields_in_brief(self, ('layers', 'names'))[:-1]}, passes={len(self.passes)})"

    def __getattr__(self, name: str) -> NDArray[Any]:
        _require_measured(self, name)
        if not self.passes:
            raise ValueError("nothing was observed yet: no layer of the model has been called")
        if len(self.passes) > 1 and name in PER_KEY:
            raise ValueError(f"{name} is per key, and {len(self.passes)} passes have their own keys: {_EACH}")
        values = [getattr(p, name) for p in self.passes]
        kinds = {(tuple(sorted(p.layers)), v.shape[:3]) for p, v in zip(self.passes, values, strict=True)}
        if len(kinds) > 1:
            raise ValueError(f"the passes have other layers or batch sizes, {_SHARED}: {_EACH}")
        return np.concatenate(values, axis=3)

    def per_head(self, name: str) -> NDArray[np.float64]:
        """The mean over batch and tokens that are no padding, ``[layers, heads]``."""
        return _mean(getattr(self, name), (1, 3))

    def per_token(self, name: str) -> NDArray[np.float64]:
        """The mean over batch and heads, ``[layers, tokens]``; NaN where all sequences have padding."""
        return _mean(getattr(self, name), (1, 2))

    def to_frame(self) -> DataFrame:
        """A pandas frame: a row for each layer, batch, head and token, a column for each metric that has one
        number per token."""
        names = [name for name in self.names if name not in PER_KEY]
        if not names:
            raise ValueError("nothing with one number per token was measured")
        columns = {name: getattr(self, name) for name in names}
        layers, *others = np.indices(columns[names[0]].shape, dtype=np.int32)
        index = [np.asarray(self._called())[layers], *others]
        labels = dict(zip(("layer", "batch", "head", "token"), index, strict=True))
        flat = {name: array.reshape(-1) for name, array in (labels | columns).items()}
        frame: DataFrame = require("pandas").DataFrame(flat)
        return frame

    def plot_heads(self, name: str, *, ax: Axes | None = None) -> Axes:
        """A map of `per_head`."""
        label = plots.label_of(name)
        return plots.plot_head_map(self.per_head(name), label=label, layers=self._called(), ax=ax)

    def plot_tokens(self, name: str, *, ax: Axes | None = None) -> Axes:
        """`per_token` of every layer along the tokens; a rule stands where generation begins."""
        values, label = self.per_token(name), plots.label_of(name)
        prompt = getattr(self.passes[0], name).shape[3] if len(self.passes) > 1 else None
        return plots.plot_tokens(values, self._called(), label=label, prompt=prompt, ax=ax)

    def figure(self, *, title: str = "") -> Figure:
        """Maps of the metrics by layer and head: entropy, local concentration, long range and retention where
        they were measured, else the first ones that were."""
        names = [name for name in PANELS if name in self.names] or list(self.names[:4])
        maps = {name: self.per_head(name) for name in names}
        return plots.maps_figure(maps, layers=self._called(), title=title)

    def _called(self) -> list[int]:
        return sorted(self.passes[0].layers)


@contextmanager
def observe(
    model: Any,
    *,
    layers: int | Iterable[int] | None = None,
    names: str | Iterable[str] | None = None,
    metrics: MetricOptions | None = None,
) -> Iterator[Observation]:
    """Measure the attention of `model` in every forward pass within the ``with`` block.

    Memory is one number per metric, layer, head and token, so that contexts can be observed whose maps would
    not fit. The model computes the same outputs as before, and is restored at the end, also after an
    exception.

    Parameters
    ----------
    model:
        As in `rattention.inspect.capture`: of Transformers, with layers of `rattention.nn`, or a
        `rattention.models.Bert`; on the CPU.
    layers:
        Which attention layers, counted from 0 in the order of the model's modules; all by default.
    names:
        Which fields of `AttentionMetrics` to keep, one or several; by default all with one number per token.
    metrics:
        What to measure, and the distances. ``received``, one number per key, costs a second sweep; by default
        it is measured only where it is among `names`.

    Yields
    ------
    An `Observation`, which fills as the model runs and can be read at any time.

    Raises
    ------
    TypeError
        `model` is something else, or arguments of other kinds.
    ValueError
        Unknown names or layers, or a model without attention layers that can be observed.
    RuntimeError
        The model, or a part of it, is within such a block already.

    Notes
    -----
    What ``"rattention"`` refuses is refused here (see `rattention.hf.register`). Metrics are not
    differentiable, the outputs are. Rows of padding, and rows that may attend to nothing, are NaN, their
    ``max_position`` is -1: means leave them out. Of RAttention layers the local branch is measured. Where a
    cache keeps a sliding window alone, ``max_position`` and ``received`` count from the first key that it
    keeps. A module that attends several times, for several layers (ALBERT's) or twice in one (DiffLlama's),
    begins a pass with each call.

    >>> import torch, rattention
    >>> from transformers import BertConfig, BertModel
    >>> model = BertModel(BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2,
    ...                              num_attention_heads=4, intermediate_size=64)).eval()
    >>> with rattention.observe(model) as seen:
    ...     _ = model(torch.arange(12)[None])
    >>> seen.entropy.shape  # layers, batch, heads, tokens
    (2, 1, 4, 12)
    """
    kept, measured = _chosen_metrics(names, metrics)
    modules = attention_layers(model)
    chosen = chosen_numbers("layers", layers, range(len(modules)))
    observation = Observation(tuple(modules), chosen, kept)
    two_sided = getattr(getattr(model, "config", None), "is_encoder_decoder", False)

    def visit(layer: LayerAttention) -> None:
        if layer.index in chosen:
            shown = None if two_sided and not layer.options.get("causal") else _shown_rows(layer)
            arrays = _arrays(layer.attend(measured), kept, shown)
            if not observation.passes or layer.index in observation.passes[-1].layers:
                observation.passes.append(Pass(kept))
            observation.passes[-1].layers[layer.index] = arrays

    with visiting(model, visit):
        yield observation


def _shown_rows(layer: LayerAttention) -> NDArray[np.bool_] | None:
    """Which rows are no padding, ``[batch, rows]``; None where there is none. Not for a decoder that attends
    to an encoder: there masks of keys are not those of queries."""
    mask, rows = layer.options.get("key_mask"), layer.query.shape[2]
    return None if mask is None or rows > layer.key.shape[2] else mask[:, -rows:]


def _arrays(
    metrics: AttentionMetrics, names: tuple[str, ...], shown: NDArray[np.bool_] | None
) -> dict[str, NDArray[Any]]:
    left_out = metrics.empty_rows if shown is None else metrics.empty_rows | ~shown[:, None]
    arrays = {name: values for name, values in metrics if name in names}
    for name, values in arrays.items():
        if name not in PER_KEY:
            values[left_out] = np.nan if values.dtype.kind == "f" else -1
    return arrays


def _chosen_metrics(
    names: str | Iterable[str] | None, metrics: MetricOptions | None
) -> tuple[tuple[str, ...], MetricOptions]:
    if metrics is not None and not isinstance(metrics, MetricOptions):
        raise TypeError(f"metrics must be a MetricOptions or None, got {type(metrics).__name__}")
    if names is not None and not isinstance(names, Iterable):
        raise TypeError(f"names must be names of metrics, got {type(names).__name__}")
    measured = metrics or MetricOptions(received=False)
    everything = METRICS if measured.received else ROW_METRICS
    asked = everything if names is None else (names,) if isinstance(names, str) else tuple(names)
    if not asked or not set(asked) <= set(METRICS):
        raise ValueError(f"names must be some of {', '.join(METRICS)}; got {asked!r}")
    kept = tuple(name for name in METRICS if name in asked)
    return kept, replace(measured, received="received" in kept)


def _require_measured(owner: Any, name: str) -> None:
    names = vars(owner).get("names", ())  # not there yet while an object is copied
    if name not in names:
        raise AttributeError(f"{name} was not measured; there are {', '.join(names)}")


def _mean(values: NDArray[Any], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """Without NaN; NaN where there is nothing else."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum(axis=axes, dtype=np.float64)
    count = there.sum(axis=axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
