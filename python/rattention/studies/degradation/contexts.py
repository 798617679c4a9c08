"""Measurements of progressively longer contexts: metrics, what a window cuts off, and what is recalled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rattention._metrics import MetricOptions
from rattention.inspect import LayerAttention, Limits
from rattention.studies.degradation.sources import Context, Selection, Source

Progress = Callable[[Sequence[int], str], Iterable[int]]

AVERAGED = ("entropy", "local_concentration", "long_range", "retention")
"""The metrics that the demo follows."""

FIRST_TOKENS = 50
"""How many tokens at the beginning count as the first ones: the shortest of the usual contexts."""


@dataclass(frozen=True, eq=False)
class ContextMetrics:
    """One context length: averages over the selected layers and heads and all query rows."""

    context_length: int
    """Tokens asked for."""
    sequence_length: int
    """Tokens there were: fewer when the text is shorter."""
    entropy: float
    """In nats."""
    local_concentration: float
    """Share of the weight on tokens at most `MetricOptions.local_radius` away."""
    long_range: float
    """Share of the weight on tokens more than `MetricOptions.long_range_distance` away."""
    retention: float
    """Retention score in [0, 1]: how evenly and how far attention reaches."""
    retention_change: float | None
    """Against the previous context; None for the first."""
    first_tokens_share: float
    """Share of the weight that the first `FIRST_TOKENS` tokens receive, averaged over the query rows."""
    per_head: dict[str, NDArray[np.float64]]
    """The four averages of every layer and head, ``[layers, heads]`` each."""

    @property
    def first_tokens_even_share(self) -> float:
        """What the first tokens would receive if attention were even."""
        return min(1.0, FIRST_TOKENS / self.sequence_length)


def no_progress(items: Sequence[int], _description: str) -> Iterable[int]:
    """Show nothing: what the measurements do by default."""
    return items


def measure_contexts(
    source: Source,
    lengths: Sequence[int],
    *,
    selection: Selection | None = None,
    metrics: MetricOptions | None = None,
    progress: Progress = no_progress,
) -> tuple[ContextMetrics, ...]:
    """Measure contexts of `lengths` tokens (special tokens counted), in the order given.

    Parameters
    ----------
    source:
        What gives the contexts.
    lengths:
        In tokens, at least 3 each and within the model's positions; else ValueError.
    selection:
        Layers and heads to average over; all by default.
    metrics:
        Their distances.
    progress:
        Wraps the lengths while they are worked on, as ``tqdm`` does; its second argument is a title.
    """
    selection = selection or Selection.of(source)
    metrics = metrics or MetricOptions()
    measured: list[ContextMetrics] = []
    for length in progress(lengths, "contexts"):
        previous = measured[-1].retention if measured else None
        measured.append(measure_context(source.context(length), length, selection, metrics, previous))
    return tuple(measured)


def measure_context(
    context: Context, asked: int, selection: Selection, metrics: MetricOptions, previous: float | None
) -> ContextMetrics:
    """Measure one context of `asked` tokens; `previous` is the retention that the change is taken against."""
    layers = context.visit(lambda layer: layer.attend(metrics))
    per_head = {
        name: np.stack([getattr(layer, name)[0].mean(axis=-1, dtype=np.float64) for layer in layers])
        for name in AVERAGED
    }
    means = {name: selection.mean(values) for name, values in per_head.items()}
    received = [np.asarray(layer.received)[0, :, :FIRST_TOKENS] for layer in layers]  # means over the rows
    return ContextMetrics(
        context_length=asked,
        sequence_length=context.sequence_length,
        **means,
        retention_change=None if previous is None else means["retention"] - previous,
        first_tokens_share=selection.mean(np.stack([r.sum(axis=-1, dtype=np.float64) for r in received])),
        per_head=per_head,
    )


@dataclass(frozen=True)
class Thresholds(Limits):
    """Where the marks begin. They are rules of thumb for BERT-sized contexts, not laws."""

    entropy: float = 2.0
    """Mean entropy above this many nats is a good spread."""
    local_concentration: float = 0.8
    """More than this share of the weight on near neighbours is a strong local bias."""
    long_range: float = 0.02
    """Less than this share of the weight on distant tokens is poor long-range attention."""
    retention_drop: float = 0.01
    """Retention falling by more than this against the previous context is degradation."""

    def marks(self, context: ContextMetrics) -> tuple[str, ...]:
        """Names of what is remarkable about a context, in this order: good_spread, strong_local_bias,
        poor_long_range, degradation."""
        fell = -(context.retention_change or 0.0)
        found = {
            "good_spread": context.entropy > self.entropy,
            "strong_local_bias": context.local_concentration > self.local_concentration,
            "poor_long_range": context.long_range < self.long_range,
            "degradation": fell > self.retention_drop,
        }
        return tuple(name for name, there in found.items() if there)


WINDOWS = (8, 16, 32, 64, 128, 256)
"""Window sizes looked at by default, in tokens on either side."""


@dataclass(frozen=True, eq=False)
class WindowCutoff:
    """Attention that would be lost if every row saw only its `windows[i]` neighbours on either side: the
    case for a linear branch (arXiv 2506.15545, section 2)."""

    sequence_length: int
    windows: tuple[int, ...]
    mass: NDArray[np.float64]
    """Mean over the query rows of the weight farther away than the window, ``[layers, heads, windows]``."""


def measure_window_cutoff(context: Context, windows: Sequence[int] = WINDOWS) -> WindowCutoff:
    """Measure, for every layer and head, how much weight lies beyond each of `windows`."""
    layers = context.visit(lambda layer: np.stack([_beyond(layer, w) for w in windows], axis=-1))
    return WindowCutoff(context.sequence_length, tuple(windows), np.stack(layers))


def _beyond(layer: LayerAttention, window: int) -> NDArray[np.float64]:
    far = layer.metrics(MetricOptions(long_range_distance=window, received=False)).long_range
    return np.asarray(far[0].mean(-1, np.float64))


@dataclass(frozen=True, eq=False)
class Recall:
    """How a question looks at its fact in one context."""

    context_length: int
    """Tokens asked for."""
    sequence_length: int
    """Tokens there were."""
    fact_tokens: int
    """Tokens of the fact."""
    mass: NDArray[np.float64]
    """Weight on the fact, mean over the question's tokens, ``[layers, heads]``."""
    mean_mass: float
    """`mass` averaged over the selected layers and heads."""
    rank: int
    """Place of the fact's most attended token among all but the question's own; 1 = most attended."""
    candidates: int
    """Tokens that are ranked, special tokens included."""

    @property
    def even_mass(self) -> float:
        """What the fact would receive if attention were even."""
        return self.fact_tokens / self.sequence_length


def measure_recall(
    source: Source,
    lengths: Sequence[int],
    *,
    selection: Selection | None = None,
    progress: Progress = no_progress,
) -> tuple[Recall, ...]:
    """Measure how the question looks at the fact in contexts of `lengths` tokens, in the order given;
    `source` is a `Conversation` or a `SyntheticConversation`.

    The rank compares what tokens receive from the question on average over the selected layers and heads.
    Only the question's rows of the attention maps are ever computed.
    """
    chosen = selection or Selection.of(source)
    return tuple(_recall(source.context(n), n, chosen) for n in progress(lengths, "recall"))


def _recall(case: Context, asked: int, selection: Selection) -> Recall:
    assert case.fact is not None
    assert case.question is not None
    question = case.question
    received = np.stack(
        case.visit(lambda layer: layer.rows(question)[0].mean(axis=1, dtype=np.float64))
    )  # by every token, mean over the question's rows: [layers, heads, sequence_length]
    mass = received[:, :, case.fact].sum(axis=-1)
    by_token = selection.of_array(received).mean(axis=(0, 1))
    others = np.setdiff1d(np.arange(by_token.size), np.concatenate([question, case.fact]))
    return Recall(
        context_length=asked,
        sequence_length=case.sequence_length,
        fact_tokens=case.fact.size,
        mass=mass,
        mean_mass=selection.mean(mass),
        rank=1 + int((by_token[others] > by_token[case.fact].max()).sum()),
        candidates=others.size + case.fact.size,
    )


@dataclass(frozen=True, eq=False)
class Degradation:
    """Everything that was measured."""

    contexts: tuple[ContextMetrics, ...]
    """One entry per context length."""
    cutoff: WindowCutoff
    """What a sliding window would cut off in the longest context."""
    recall: tuple[Recall, ...]
    """How a question looks at its fact, for every context length that holds both; may be empty."""
    selection: Selection
    """Layers and heads that the averages are taken over."""
    metrics: MetricOptions
    """Distances of the metrics."""
    thresholds: Thresholds
    """Where the marks begin."""

    def as_data(self) -> dict[str, Any]:
        """All numbers in lists and dictionaries, as they stand in the JSON file."""
        return {
            "contexts": [context_data(context, self.thresholds) for context in self.contexts],
            "first_tokens": FIRST_TOKENS,
            "heads": {name: self.contexts[-1].per_head[name].tolist() for name in AVERAGED},
            "window_cutoff": self._cutoff_data(),
            "recall": [self._recall_data(recall) for recall in self.recall],
            "selection": asdict(self.selection),
            "metric_options": asdict(self.metrics),
            "thresholds": asdict(self.thresholds),
        }

    def _cutoff_data(self) -> dict[str, Any]:
        chosen = self.selection.of_array(self.cutoff.mass)
        return {
            "sequence_length": self.cutoff.sequence_length,
            "windows": list(self.cutoff.windows),
            "mean": chosen.mean(axis=(0, 1)).tolist(),
            "layers": list(self.selection.layers),
            "per_layer": chosen.mean(axis=1).tolist(),
        }

    def _recall_data(self, recall: Recall) -> dict[str, Any]:
        chosen = self.selection.of_array(recall.mass)
        named = ("context_length", "sequence_length", "fact_tokens", "mean_mass", "even_mass")
        return {name: getattr(recall, name) for name in named} | {
            "layer_mean_mass": chosen.mean(axis=1).tolist(),
            "layer_best_mass": chosen.max(axis=1).tolist(),
            "layer_best_head": [self.selection.heads[i] for i in chosen.argmax(axis=1)],
            "rank": recall.rank,
            "candidates": recall.candidates,
        }


def context_data(context: ContextMetrics, thresholds: Thresholds) -> dict[str, Any]:
    """One context in plain data."""
    shares = ("retention_change", "first_tokens_share", "first_tokens_even_share")
    numbers = {
        name: getattr(context, name) for name in ("context_length", "sequence_length", *AVERAGED, *shares)
    }
    return numbers | {"marks": list(thresholds.marks(context))}


def measure(
    source: Source,
    conversation: Source,
    lengths: Sequence[int],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    metrics: MetricOptions | None = None,
    thresholds: Thresholds | None = None,
    progress: Progress = no_progress,
) -> Degradation:
    """Measure contexts of `lengths` tokens, what a window would cut off in the longest, and the conversation.

    Parameters
    ----------
    source:
        What gives the contexts: a `TextSource` or a `SyntheticSource`.
    conversation:
        What gives fact and question, a `Conversation` or a `SyntheticConversation`; lengths that cannot hold
        both are left out of the recall.
    lengths:
        In tokens, special tokens counted; put into ascending order.
    layers, heads:
        What to average over, counted from 0; all by default.
    metrics, thresholds:
        Distances of the metrics, and where the marks begin.
    progress:
        Wraps what is being worked on, as ``tqdm`` does; its second argument is a title.

    Raises
    ------
    ValueError
        No length, one below 3 or beyond the model's positions, or a layer or head that does not exist.
    """
    lengths = sorted(set(lengths))
    if not lengths:
        raise ValueError("at least one context length is needed")
    selection = Selection.of(source, layers, heads)
    metrics = metrics or MetricOptions()
    contexts = measure_contexts(source, lengths, selection=selection, metrics=metrics, progress=progress)
    cutoff = measure_window_cutoff(source.context(lengths[-1]), WINDOWS)
    holding_both = [n for n in lengths if n >= conversation.shortest]
    recall = measure_recall(conversation, holding_both, selection=selection, progress=progress)
    return Degradation(contexts, cutoff, recall, selection, metrics, thresholds or Thresholds())
