"""Which tokens to keep: strategies as small classes, and the table that names them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from rattention._arguments import at_least, real_number
from rattention.compression.past import Attention, Kept, Past, along, in_order

SINKS = 4
"""First tokens that ``"sinks"`` keeps, as StreamingLLM does (arXiv 2309.17453, section 3.2); see `table`."""


class Strategy(ABC):
    """Chooses what to keep of a `Past`; nothing else is known to it."""

    needs_queries = False
    """Whether it measures attention."""
    common = False
    """Whether all heads keep the same tokens; else each chooses for itself."""
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

    common = True
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

    common = True

    def keep(self, past: Past, count: int) -> Kept:
        """Those nearest to ``linspace`` over the past, counted from its end."""
        back = np.rint(np.linspace(0, len(past) - 1, count)).astype(np.int64)
        return _for_all_heads(past, len(past) - 1 - back[::-1])


@dataclass(frozen=True)
class TopK(Strategy):
    """The tokens with most attention, of each head its own; among equals the newer.

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
        for name, join in (("needs_queries", any), ("common", all), ("replaces", any), ("makes_tokens", any)):
            object.__setattr__(self, name, join(getattr(part, name) for part in self.parts))

    def keep(self, past: Past, count: int) -> Kept:
        """What the parts keep, together."""
        left = np.broadcast_to(np.arange(len(past)), (past.heads, len(past)))
        pieces = []
        for part, own in zip(self.parts, self._counts(count), strict=True):
            if own > 0:
                kept = part.keep(past.only(left), own)
                pieces.append(_within(left, kept))
                left = _without(left, kept.indices)
        return _joined(past, pieces)

    def _counts(self, count: int) -> list[int]:
        """How many each part keeps."""
        counts = [int(share * count + 1e-9) for share in self.shares]
        counts[0] += count - sum(counts)
        return counts


def _for_all_heads(past: Past, indices: NDArray[np.int64]) -> Kept:
    return Kept(np.broadcast_to(indices, (past.heads, len(indices))))


def _within(left: NDArray[np.int64], kept: Kept) -> Kept:
    """What was kept of the tokens `left`, by the numbers that they have in `past`."""
    return Kept(np.take_along_axis(left, kept.indices, axis=1), kept.key, kept.value, kept.log_size)


def _without(left: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    stays = np.ones(left.shape, bool)
    np.put_along_axis(stays, taken, False, axis=1)
    return left[stays].reshape(len(left), -1)


def _joined(past: Past, pieces: list[Kept]) -> Kept:
    """One `Kept` of several; where one replaces keys, the others' are those of `past`."""
    indices = np.concatenate([piece.indices for piece in pieces], axis=1)
    if all(piece.key is None for piece in pieces):
        return in_order(Kept(indices))
    keys = [along(past.key, p.indices) if p.key is None else p.key for p in pieces]
    sizes = [_log_size(past, p) if p.log_size is None else p.log_size for p in pieces]
    values = None
    if past.value is not None:
        values = np.concatenate(
            [along(past.value, p.indices) if p.value is None else p.value for p in pieces], axis=1
        )
    return in_order(Kept(indices, np.concatenate(keys, axis=1), values, np.concatenate(sizes, axis=1)))


def _log_size(past: Past, piece: Kept) -> NDArray[np.float32]:
    if past.log_size is None:
        return np.zeros(piece.indices.shape, np.float32)
    return along(past.log_size, piece.indices)
