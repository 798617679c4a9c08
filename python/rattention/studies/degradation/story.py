"""Everything that the demo measures, in one call, and its numbers as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rattention._metrics import MetricOptions
from rattention.studies.degradation.contexts import (
    AVERAGED,
    FIRST_TOKENS,
    WINDOWS,
    ContextMetrics,
    Thresholds,
    WindowCutoff,
    measure_contexts,
    measure_window_cutoff,
    no_progress,
)
from rattention.studies.degradation.recall import Recall, measure_recall
from rattention.studies.degradation.sources import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattention.studies.degradation.contexts import Progress
    from rattention.studies.degradation.sources import Source


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
        return {
            "context_length": recall.context_length,
            "sequence_length": recall.sequence_length,
            "fact_tokens": recall.fact_tokens,
            "mean_mass": recall.mean_mass,
            "even_mass": recall.even_mass,
            "layer_mean_mass": chosen.mean(axis=1).tolist(),
            "layer_best_mass": chosen.max(axis=1).tolist(),
            "layer_best_head": [self.selection.heads[i] for i in chosen.argmax(axis=1)],
            "rank": recall.rank,
            "candidates": recall.candidates,
        }


def context_data(context: ContextMetrics, thresholds: Thresholds) -> dict[str, Any]:
    """One context in plain data."""
    return {
        "context_length": context.context_length,
        "sequence_length": context.sequence_length,
        **{name: getattr(context, name) for name in AVERAGED},
        "retention_change": context.retention_change,
        "first_tokens_share": context.first_tokens_share,
        "first_tokens_even_share": context.first_tokens_even_share,
        "marks": list(thresholds.marks(context)),
    }


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
