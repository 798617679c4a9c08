"""Multi-query associative recall, MQAR (arXiv 2312.04927, section 3).

A sequence begins with key-value pairs, one after the other, with distinct keys. In what follows every key
stands once more, and the model must give its value at that place. Places of these queries are drawn without
replacement with weights proportional to ``i ** (a - 1)``, a = 0.01, i = 1, 2, ... counting every second
place after the pairs; all other places hold random tokens. Keys are the tokens 1 .. vocabulary/2 - 1 and
values are vocabulary/2 .. vocabulary - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

POWER = 0.01
NO_LABEL = -100
"""What `torch.nn.functional.cross_entropy` leaves out."""


@dataclass(frozen=True, eq=False)
class Recalls:
    """Sequences of the task."""

    tokens: NDArray[np.int64]
    """``[sequences, length]``."""
    labels: NDArray[np.int64]
    """The values at the places of the queries, `NO_LABEL` elsewhere, ``[sequences, length]``."""
    gaps: NDArray[np.int64]
    """Positions between a query and the value it asks for, 0 elsewhere, ``[sequences, length]``."""


def draw(generator: np.random.Generator, sequences: int, length: int, pairs: int, vocabulary: int) -> Recalls:
    """Random sequences of the task."""
    half = vocabulary // 2
    keys = 1 + _distinct(generator, np.ones(half - 1), sequences, pairs)
    values = generator.integers(half, vocabulary, (sequences, pairs))
    places = np.arange(1, (length - 2 * pairs) // 2 + 1, dtype=np.float64)
    slots = _distinct(generator, places ** (POWER - 1), sequences, pairs)
    queries = 2 * pairs + 2 * slots
    tokens = generator.integers(0, vocabulary, (sequences, length))
    tokens[:, : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2] = keys, values
    labels, gaps = np.full((sequences, length), NO_LABEL), np.zeros((sequences, length), np.int64)
    row = np.arange(sequences)[:, None]
    tokens[row, queries], labels[row, queries] = keys, values
    gaps[row, queries] = queries - (2 * np.arange(pairs) + 1)
    return Recalls(tokens, labels, gaps)


def _distinct(
    generator: np.random.Generator, weights: NDArray[np.float64], sequences: int, count: int
) -> NDArray[np.int64]:
    """`count` different places for each sequence, drawn one after another with these weights.

    The largest ``log(u) / weight``, u uniform, are such a draw (Efraimidis and Spirakis, 2006).
    """
    scores = np.log(generator.random((sequences, len(weights)))) / weights
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]
