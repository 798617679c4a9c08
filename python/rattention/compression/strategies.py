"""Strategies that choose which tokens to keep, and `STRATEGIES`, the table that names them; the command line,
the validation and the tests go through this table.

Some are training-free methods of the literature, with differences:

- ``"sinks"``: StreamingLLM (arXiv 2309.17453, section 3.2), the first 4 tokens and the newest ones. There
  positions are counted within the cache; here tokens keep their true positions.
- ``"query"``: TOVA (arXiv 2401.06104), the tokens with most attention from the newest query. There the mean
  over heads decides for all heads of a layer; here each key/value head chooses for itself.
- ``"recent+received"``: H2O (arXiv 2306.14048), half of the budget for the newest tokens, half for those with
  most attention from all queries. There attention is summed, which favours old tokens; here it is the mean
  over the queries that may see a token. Where generation cuts, the queries since the last cut decide, at most
  64, much as the observation window of SnapKV (arXiv 2404.14469), which compresses prompts alone and also
  smooths over neighbouring tokens.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import at_least, real_number
from rattention._extras import require
from rattention.compression.past import Attention, Kept, Past, along, in_order

SINKS = 4
"""First tokens that ``"sinks"`` keeps, as StreamingLLM does (arXiv 2309.17453, section 3.2)."""

Replacement = Literal["mean", "representative"]

MOST_IN_ONE_BATCH = 4096
"""With more tokens than this, k-means works on random batches."""


class Strategy(ABC):
    """Chooses what to keep of a `Past`; nothing else is known to it."""

    needs_queries = False
    """Whether it measures attention."""
    replaces = False
    """Whether what it keeps may stand for several tokens."""
    makes_tokens = False
    """Whether that may be none of the tokens themselves."""

    @abstractmethod
    def keep(self, past: Past, count: int) -> Kept:
        """Exactly `count` of the tokens for each head; ``1 <= count <= len(past)``."""

    def __add__(self, other: Strategy) -> Combined:
        """Half of the budget for this one, then half for `other`, of what is left."""
        return Combined((self, other), (0.5, 0.5))


@dataclass(frozen=True)
class Recency(Strategy):
    """The newest tokens, and optionally the first few, the "attention sinks"; common to all heads.

    The newest token stays in any case: a budget of k keeps at most k - 1 sinks.
    """

    sinks: int = 0
    """First tokens to keep."""

    def __post_init__(self) -> None:
        at_least("sinks", self.sinks, 0)

    def keep(self, past: Past, count: int) -> Kept:
        """The first `sinks` and the last of the others."""
        first = min(self.sinks, count - 1)
        newest = np.arange(len(past) - (count - first), len(past))
        return _for_all_heads(past, np.concatenate([np.arange(first), newest]))


@dataclass(frozen=True)
class Uniform(Strategy):
    """Tokens at equal distances, from the first to the newest, which stays in any case; common to all
    heads."""

    def keep(self, past: Past, count: int) -> Kept:
        """Those nearest to ``linspace`` over the past, counted from its end."""
        back = np.rint(np.linspace(0, len(past) - 1, count)).astype(np.int64)
        return _for_all_heads(past, len(past) - 1 - back[::-1])


@dataclass(frozen=True)
class TopK(Strategy):
    """The tokens with the most attention, chosen per head; among equals, the newer.

    By ``"received"``: mean attention from the query rows that may see a token (heavy hitters, after arXiv
    2306.14048); by ``"query"``: attention of the newest row. Grouped query heads are averaged. Both come from
    streamed metrics, never from a map.
    """

    needs_queries = True
    by: Attention = "received"

    def __post_init__(self) -> None:
        if self.by not in get_args(Attention):
            raise ValueError(f"by must be one of {', '.join(get_args(Attention))}, got {self.by!r}")

    def keep(self, past: Past, count: int) -> Kept:
        """The `count` largest."""
        ascending = np.argsort(past.attention(self.by), axis=1, kind="stable")
        return Kept(np.sort(ascending[:, len(past) - count :], axis=1))


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
        options = {"init": keys[start], "n_init": 1, "max_iter": self.iterations, "random_state": self.seed}
        if len(keys) > MOST_IN_ONE_BATCH:
            fit = cluster.MiniBatchKMeans(len(start), batch_size=MOST_IN_ONE_BATCH, **options)
        else:
            fit = cluster.KMeans(len(start), **options)
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
            chosen = past.only(indices)
            return in_order(Kept(indices, chosen.key, chosen.value, log_size))
        value = None
        if past.value is not None:
            value = (_sums(past.value * weights[:, :, None], labels, count) / size).astype(np.float32)
        return in_order(Kept(indices, mean.astype(np.float32), value, log_size))


@dataclass(frozen=True)
class Combined(Strategy):
    """Several strategies, one after the other, each on what those before it have left.

    Shares of the budget are rounded down; what remains is the first one's. A strategy that replaces tokens
    stands for all that is left, and must be the last.
    """

    parts: tuple[Strategy, ...]
    shares: tuple[float, ...]
    """One per part, positive, of sum 1."""

    def __post_init__(self) -> None:
        for part in self.parts:
            if not isinstance(part, Strategy):
                raise TypeError(f"parts must be strategies, got {part!r}")
        if not self.parts or len(self.parts) != len(self.shares):
            raise ValueError(
                f"shares must be one per part, got {len(self.shares)} for {len(self.parts)} parts"
            )
        total = sum(real_number("shares", share) for share in self.shares)
        if min(self.shares) <= 0 or abs(total - 1) > 1e-6:
            raise ValueError(f"shares must be positive with the sum 1, got {self.shares}")
        if any(part.replaces for part in self.parts[:-1]):
            raise ValueError(
                "a strategy that replaces tokens stands for all that is left: it must be the last"
            )
        for name in ("needs_queries", "replaces", "makes_tokens"):
            object.__setattr__(self, name, any(getattr(part, name) for part in self.parts))

    def keep(self, past: Past, count: int) -> Kept:
        """What the parts keep, together."""
        left = np.broadcast_to(np.arange(len(past)), (past.heads, len(past)))
        pieces = []
        for part, own in zip(self.parts, self._counts(count), strict=True):
            if own > 0:
                kept = part.keep(past.only(left), own)
                pieces.append(replace(kept, indices=np.take_along_axis(left, kept.indices, axis=1)))
                stays = np.ones(left.shape, bool)
                np.put_along_axis(stays, kept.indices, False, axis=1)
                left = left[stays].reshape(past.heads, -1)
        return _joined(past, pieces)

    def _counts(self, count: int) -> list[int]:
        """How many each part keeps."""
        counts = [int(share * count + 1e-9) for share in self.shares]
        counts[0] += count - sum(counts)
        return counts


STRATEGIES: dict[str, Strategy] = {
    "recency": Recency(),
    "sinks": Recency(sinks=SINKS),
    "uniform": Uniform(),
    "received": TopK(by="received"),
    "query": TopK(by="query"),
    "clusters": Clusters(),
    "representatives": Clusters(by="representative"),
    "recent+received": Recency() + TopK(by="received"),
    "recent+query": Recency() + TopK(by="query"),
    "recent+clusters": Recency() + Clusters(),
}
"""Strategies with their usual settings."""


def require_strategy(strategy: Any) -> Strategy:
    """`strategy`, or that of a name in `STRATEGIES`; ValueError for other names, TypeError for others."""
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str):
        raise TypeError(f"strategy must be a Strategy or a name, got {type(strategy).__name__}")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
    return STRATEGIES[strategy]


def _for_all_heads(past: Past, indices: NDArray[np.int64]) -> Kept:
    return Kept(np.broadcast_to(indices, (past.heads, len(indices))))


def _joined(past: Past, pieces: list[Kept]) -> Kept:
    """One `Kept` of several; where the last replaces keys, the others' are those of `past`."""
    indices, last = np.concatenate([piece.indices for piece in pieces], axis=1), pieces[-1]
    if last.key is None:
        return in_order(Kept(indices))
    whole = past.only(indices)
    sizes = np.zeros(indices.shape, np.float32) if whole.log_size is None else whole.log_size
    for array, own in ((whole.key, last.key), (whole.value, last.value), (sizes, last.log_size)):
        if array is not None and own is not None:
            array[:, -own.shape[1] :] = own
    return in_order(Kept(indices, whole.key, whole.value, sizes))


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
