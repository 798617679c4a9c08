"""Clusters of keys: what many tokens have in common stands for all of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import at_least
from rattention._extras import require
from rattention.compression.past import Kept, Past, along, in_order
from rattention.compression.strategies import Strategy, Uniform

Replacement = Literal["mean", "representative"]

MOST_IN_ONE_BATCH = 4096
"""With more tokens than this, k-means works on random batches."""


@dataclass(frozen=True)
class Clusters(Strategy):
    """k-means of the keys, of each head its own; a cluster of m tokens becomes one, with ``ln m`` added to
    its score, so that it gets the attention of m equal keys.

    Where all keys of a cluster are equal and it becomes its mean, nothing changes. The first centres are keys
    at equal distances. Needs scikit-learn, of the extra ``inspect``.
    """

    replaces = True
    by: Replacement = "mean"
    """``"mean"``: the means of its keys and values; ``"representative"``: the token nearest to the mean."""
    iterations: int = 10
    """Rounds of k-means at most."""
    seed: int = 0
    """Of the random batches, which more than 4096 tokens are split into."""

    def __post_init__(self) -> None:
        if self.by not in get_args(Replacement):
            raise ValueError(f"by must be one of {', '.join(get_args(Replacement))}, got {self.by!r}")
        for name, least in (("iterations", 1), ("seed", 0)):
            at_least(name, getattr(self, name), least)
        object.__setattr__(self, "makes_tokens", self.by == "mean")

    def keep(self, past: Past, count: int) -> Kept:
        """`count` clusters for each head."""
        if not np.isfinite(past.key).all():
            raise ValueError("keys cannot be clustered: they hold NaN or infinity")
        start = Uniform().keep(past, count).indices
        sizes = np.zeros(past.key.shape[:2]) if past.log_size is None else past.log_size
        weights = np.exp(sizes.astype(np.float64))
        labels = np.stack([self._labels(*head) for head in zip(past.key, weights, start, strict=True)])
        return self._replaced(past, weights, labels, count)

    def _labels(
        self, keys: NDArray[np.float32], weights: NDArray[np.float64], start: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The cluster of each token of a head, none of them empty."""
        cluster = require("sklearn.cluster")
        form, options = cluster.KMeans, {}
        if len(keys) > MOST_IN_ONE_BATCH:
            form, options = cluster.MiniBatchKMeans, {"batch_size": MOST_IN_ONE_BATCH}
        fit: Any = form(
            len(start),
            init=keys[start],
            n_init=1,
            max_iter=self.iterations,
            random_state=self.seed,
            **options,
        )
        with warnings.catch_warnings():  # of fewer distinct keys than clusters, which _none_empty mends
            warnings.simplefilter("ignore")
            labels = fit.fit_predict(keys, sample_weight=weights)
        return _none_empty(labels.astype(np.int64), len(start))

    def _replaced(
        self, past: Past, weights: NDArray[np.float64], labels: NDArray[np.int64], count: int
    ) -> Kept:
        size = _sums(weights[:, :, None], labels, count)
        mean = _sums(past.key * weights[:, :, None], labels, count) / size
        indices = _nearest(past.key, mean, labels, count)
        log_size = np.log(size[:, :, 0]).astype(np.float32)
        if self.by == "representative":
            value = None if past.value is None else along(past.value, indices)
            return in_order(Kept(indices, along(past.key, indices), value, log_size))
        value = None
        if past.value is not None:
            value = (_sums(past.value * weights[:, :, None], labels, count) / size).astype(np.float32)
        return in_order(Kept(indices, mean.astype(np.float32), value, log_size))


def _none_empty(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Labels with every number below `count`: the last tokens of the largest clusters fill empty ones."""
    sizes = np.bincount(labels, minlength=count)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        labels[np.flatnonzero(labels == largest)[-1]] = empty
        sizes[largest] -= 1
        sizes[empty] = 1
    return labels


def _sums(rows: NDArray[Any], labels: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Sums over the tokens of each cluster: ``[heads, tokens, dim]`` to ``[heads, count, dim]``."""
    order = np.argsort(labels, axis=1, kind="stable")
    starts = np.stack([np.searchsorted(np.sort(head), np.arange(count)) for head in labels])
    ordered = along(rows.astype(np.float64), order)
    return np.stack([np.add.reduceat(head, at, axis=0) for head, at in zip(ordered, starts, strict=True)])


def _nearest(
    keys: NDArray[np.float32], means: NDArray[np.float64], labels: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Of each cluster the token nearest to its mean, the oldest of equals."""
    apart: NDArray[Any] = keys - along(means, labels)
    distance = np.square(apart).sum(axis=2)
    order = np.lexsort((distance, labels))
    ordered = np.take_along_axis(labels, order, axis=1)
    starts = np.stack([np.searchsorted(head, np.arange(count)) for head in ordered])
    return np.take_along_axis(order, starts, axis=1)
