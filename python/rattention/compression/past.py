"""The budget of tokens, the past that a strategy chooses from, and what it keeps. Nothing after the cut is
visible to a strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Budget = int | float
"""Tokens that may be kept: an int is a count, a float in (0, 1] a share of those there are."""

Attention = Literal["received", "query"]
"""Mean attention to a token from the query rows that may see it, or the newest row's attention to it."""


@dataclass(eq=False, repr=False)
class Past:
    """Tokens of one sequence up to the cut, oldest first."""

    key: NDArray[np.float32]
    """Float32 ``[heads, tokens, dim]``: key/value heads of a layer, or one head for all that a model sees."""
    value: NDArray[np.float32] | None = None
    """``[heads, tokens, value_dim]``, or None where there are none (histories before a model)."""
    _: KW_ONLY
    log_size: NDArray[np.float32] | None = None
    """``[heads, tokens]``: the natural logarithm of how many tokens each stands for; None is one each."""
    measure: Callable[[Attention], NDArray[np.float32]] | None = None
    """Gives the attention ``[heads, tokens]`` of a kind; called when a strategy asks, once for each kind."""
    _measured: dict[Attention, NDArray[np.float32]] = field(default_factory=dict, init=False)

    @property
    def heads(self) -> int:
        """Heads that may keep different tokens."""
        return len(self.key)

    def __len__(self) -> int:
        return int(self.key.shape[1])

    def attention(self, kind: Attention) -> NDArray[np.float32]:
        """``[heads, tokens]``; ValueError where it is not finite or there are no queries to measure it by."""
        if kind not in self._measured:
            if self.measure is None:
                raise ValueError(f"there are no queries here to measure attention by {kind!r} with")
            measured = self.measure(kind)
            if not np.isfinite(measured).all():
                raise ValueError(f"attention by {kind!r} is not finite: queries or keys hold NaN or infinity")
            self._measured[kind] = measured
        return self._measured[kind]

    def only(self, indices: NDArray[np.int64]) -> Past:
        """The tokens at `indices` ``[heads, kept]`` alone, with the attention they have here."""
        return Past(
            along(self.key, indices),
            None if self.value is None else along(self.value, indices),
            log_size=None if self.log_size is None else along(self.log_size, indices),
            measure=lambda kind: along(self.attention(kind), indices),
        )


@dataclass(frozen=True)
class Kept:
    """What stays: tokens, or what stands in their place."""

    indices: NDArray[np.int64]
    """``[heads, kept]``, ascending: the tokens that stay, or those nearest to what replaces them."""
    key: NDArray[np.float32] | None = None
    """``[heads, kept, dim]`` in the place of the tokens' keys; None leaves them as they are."""
    value: NDArray[np.float32] | None = None
    """``[heads, kept, value_dim]``, None with `key`."""
    log_size: NDArray[np.float32] | None = None
    """``[heads, kept]``, to be added to the scores: the logarithm of how many tokens each stands for. None
    where each stands for what it stood for before."""


def along(array: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[Any]:
    """Elements ``[heads, kept, ...]`` at `indices` ``[heads, kept]`` of ``[heads, tokens, ...]``."""
    return array[np.arange(len(array))[:, None], indices]


def in_order(kept: Kept) -> Kept:
    """The same tokens, oldest first."""
    order = np.argsort(kept.indices, axis=1, kind="stable")
    arrays = (kept.key, kept.value, kept.log_size)
    return Kept(
        np.take_along_axis(kept.indices, order, axis=1),
        *(None if array is None else along(array, order) for array in arrays),
    )


def share_kept(attention: NDArray[np.float32], indices: NDArray[np.int64]) -> float:
    """Share of attention ``[heads, tokens]`` that `indices` ``[heads, kept]`` receive, mean over heads."""
    return float((along(attention, indices).sum(axis=1) / attention.sum(axis=1)).mean())


def require_budget(budget: Any) -> Budget:
    """The budget, if it is one.

    Raises
    ------
    TypeError
        Neither an int nor a float; bool is neither.
    ValueError
        A count below 1, or a share outside (0, 1]; NaN is outside.
    """
    if isinstance(budget, bool | np.bool_) or not isinstance(budget, int | float | np.integer | np.floating):
        raise TypeError(f"budget must be an int (tokens) or a float (a share in (0, 1]), got {budget!r}")
    if isinstance(budget, int | np.integer):
        if budget < 1:
            raise ValueError(f"budget must keep at least 1 token, got {budget}")
        return int(budget)
    if not 0 < budget <= 1:
        raise ValueError(
            f"budget must be a share in (0, 1], or an int for a count of tokens, got {float(budget)!r}"
        )
    return float(budget)


def resolve_budget(budget: Any, length: int) -> int:
    """How many of `length` tokens `budget` keeps; ValueError for a count above `length`.

    Shares are rounded down, but at least one token stays.

    >>> resolve_budget(0.5, 9), resolve_budget(9, 9)
    (4, 9)
    """
    if require_budget(budget) > max(length, 1):
        raise ValueError(f"budget must be at most the {length} tokens there are, got {budget}")
    return most_kept(budget, length)


def most_kept(budget: Any, length: int) -> int:
    """`resolve_budget` where tokens are still to come: a count above `length` keeps them all."""
    allowed = require_budget(budget)
    if isinstance(allowed, int):
        return min(allowed, length)
    share = math.floor(round(allowed * length, 6))  # 0.29 * 100 is 28.999999999999996
    return min(max(1, share), length)
