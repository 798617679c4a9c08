"""A baseline without a network: interpolated n-grams with Witten and Bell's weights (1991, method C).

``P_k(x | h) = (count(h x) + kinds(h) P_{k-1}(x | h')) / (count(h) + kinds(h))``, where h are the k - 1
tokens before x, h' is h without its first token, kinds(h) is how many different tokens followed h in
training, and P_0 is uniform. Where h was never seen, P_k is P_{k-1}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counts = tuple["NDArray[np.uint64]", "NDArray[np.int64]"]
"""Numbers of n-grams, sorted, and how often each occurs."""


class NGrams:
    """Counts of a text's n-grams of every length up to `order`.

    Parameters
    ----------
    tokens:
        ``[length]`` integers of the training text.
    vocabulary:
        Number of tokens; ``vocabulary ** order`` must be below 2^64.
    """

    def __init__(self, tokens: NDArray[np.integer], vocabulary: int, order: int = 5) -> None:
        if vocabulary**order >= 2**64:
            raise ValueError(
                f"vocabulary ** order must be below 2^64, got {vocabulary} ** {order}: take a smaller order"
            )
        self.vocabulary, self.order = vocabulary, order
        self._grams: list[Counts] = []
        self._contexts: list[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]] = []
        for length in range(1, order + 1):
            ids, counts = np.unique(self._ids(tokens, length), return_counts=True)
            self._grams.append((ids, counts))
            contexts, starts = np.unique(ids // np.uint64(vocabulary), return_index=True)
            totals = np.add.reduceat(counts, starts)
            self._contexts.append((contexts, totals, np.diff(starts, append=len(ids))))

    def _ids(self, tokens: NDArray[np.integer], length: int) -> NDArray[np.uint64]:
        """A number for the n-gram that ends at each token from ``length - 1`` on."""
        count = len(tokens) - length + 1
        ids = np.zeros(max(count, 0), np.uint64)
        for i in range(length):
            ids = ids * np.uint64(self.vocabulary) + tokens[i : i + count].astype(np.uint64)
        return ids

    def probabilities(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """Of every token after those before it, ``[length]``; the first ones have less context."""
        found = np.full(len(tokens), 1 / self.vocabulary)
        for length in range(1, self.order + 1):
            if len(tokens) >= length:
                ids = self._ids(tokens, length)
                found[length - 1 :] = self._interpolated(length, ids, found[length - 1 :])
        return found

    def _interpolated(
        self, length: int, ids: NDArray[np.uint64], lower: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        grams, (contexts, totals, kinds) = self._grams[length - 1], self._contexts[length - 1]
        count = _looked_up(ids, grams[0], grams[1])
        before = ids // np.uint64(self.vocabulary)
        total, kind = _looked_up(before, contexts, totals), _looked_up(before, contexts, kinds)
        seen = total > 0
        return np.where(seen, (count + kind * lower) / np.maximum(total + kind, 1), lower)

    def distribution(self, context: NDArray[np.integer]) -> NDArray[np.float64]:
        """Of every token of the vocabulary after `context`, ``[vocabulary]``."""
        context = np.asarray(context)
        rows = (np.append(context, token) for token in range(self.vocabulary))
        return np.array([self.probabilities(row)[-1] for row in rows])

    def losses(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """Nats of every token but the first, ``[sequences, length]`` to ``[sequences, length - 1]``."""
        return np.stack([-np.log(self.probabilities(row))[1:] for row in tokens])


def _looked_up(
    ids: NDArray[np.uint64], known: NDArray[np.uint64], numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The numbers of ids, 0 of unknown ones."""
    if not len(known):
        return np.zeros(len(ids), np.int64)
    places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[places] == ids, numbers[places], 0)
