"""A concrete case of information loss: does a question still look at the fact it asks for?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rattention.studies.degradation.contexts import no_progress
from rattention.studies.degradation.sources import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rattention.inspect import LayerAttention
    from rattention.studies.degradation.contexts import Progress
    from rattention.studies.degradation.sources import Context, Source


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
    received = _received_from_question(case)
    mass = received[:, :, case.fact].sum(axis=-1)
    by_token = selection.of_array(received).mean(axis=(0, 1))
    others = np.setdiff1d(np.arange(by_token.size), np.concatenate([case.question, case.fact]))
    return Recall(
        context_length=asked,
        sequence_length=case.sequence_length,
        fact_tokens=case.fact.size,
        mass=mass,
        mean_mass=selection.mean(mass),
        rank=1 + int((by_token[others] > by_token[case.fact].max()).sum()),
        candidates=others.size + case.fact.size,
    )


def _received_from_question(case: Context) -> NDArray[np.float64]:
    """What every token receives, mean over the question's rows: ``[layers, heads, sequence_length]``."""
    layers: list[NDArray[np.float64]] = []

    def visit(layer: LayerAttention) -> None:
        assert case.question is not None
        layers.append(layer.rows(case.question)[0].mean(axis=1, dtype=np.float64))

    case.visit(visit)
    return np.stack(layers)
