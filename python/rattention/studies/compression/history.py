"""Tokens before a model, such as histories of dark rooms: chosen by what its layers and heads attend to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rattention._extras import require
from rattention.compression import STRATEGIES, Past, Strategy, require_strategy, resolve_budget
from rattention.compression.past import Attention, Budget
from rattention.inspect import capture

if TYPE_CHECKING:
    from rattention.studies.dark_room import History, HistoryTransformer

TOKEN_STRATEGIES = tuple(name for name, strategy in STRATEGIES.items() if not strategy.makes_tokens)
"""Names of strategies that choose tokens and make no new ones: those that can be used before a model."""


def compress_history(
    model: HistoryTransformer, history: History, strategy: Strategy | str, budget: Budget
) -> History:
    """The transitions that `choose_transitions` chooses. What is kept closes up: a model sees no gaps."""
    return history.select(choose_transitions(model, history, strategy, budget))


def choose_transitions(
    model: HistoryTransformer, history: History, strategy: Strategy | str, budget: Budget
) -> NDArray[np.int64]:
    """Which transitions `strategy` keeps: indices ``[batch, kept]``, ascending, of each sequence its own.

    Attention is that of `model` to the whole history with the newest next state as its query, mean of layers
    and heads; clusters are of the keys of all layers and heads, and their representatives stay.

    Parameters
    ----------
    model:
        What will look at the history; run only where the strategy asks for attention or keys.
    history:
        At most the model's context.
    strategy:
        A `Strategy` or a name in `TOKEN_STRATEGIES`.
    budget:
        An int for a count, at most those there are; a float in (0, 1] for a share of them.

    Raises
    ------
    ValueError
        An impossible budget, an unknown strategy, or one that makes new keys, which histories cannot hold.
    """
    chosen = _choosing(strategy)
    count = resolve_budget(budget, len(history))
    return chosen.keep(past_of(model, history, chosen), count).indices


@dataclass(eq=False)
class HistoryBudget:
    """Keeps a growing history within a budget: the argument `compress` of `studies.dark_room.evaluate`.

    Of a full history `interval` transitions are dropped at once, so that it is not looked at after every
    step; it never holds more than the budget. With ``forget=True`` of `evaluate` the rest is gone for good.
    """

    model: HistoryTransformer
    strategy: Strategy | str
    budget: Budget
    """A count of transitions, or a share of the model's context."""
    interval: int = 1
    """Transitions dropped at once, less than the budget."""
    kept: NDArray[np.int64] | None = None
    """What the last cut has kept of the history it was given, ``[batch, kept]``."""

    def __post_init__(self) -> None:
        self.strategy = _choosing(self.strategy)
        context = self.model.config["context"]
        self.count = resolve_budget(self.budget, context)
        if not 1 <= self.interval <= max(1, self.count - 1):
            raise ValueError(
                f"interval must be at least 1 and below the budget of {self.count}, got {self.interval}"
            )

    def __call__(self, history: History) -> History:
        """`history`, or what is kept of it."""
        if len(history) <= self.count:
            return history
        self.kept = choose_transitions(self.model, history, self.strategy, self.count - self.interval + 1)
        return history.select(self.kept)


def _choosing(strategy: Strategy | str) -> Strategy:
    chosen = require_strategy(strategy)
    if chosen.makes_tokens:
        raise ValueError(
            "transitions have no means: take Clusters(by='representative') for histories, or one of "
            f"{', '.join(TOKEN_STRATEGIES)}"
        )
    return chosen


def past_of(model: HistoryTransformer, history: History, strategy: Strategy) -> Past:
    """A history as `model` sees it, for `strategy` to choose from; each sequence in the place of a head."""
    torch = require("torch")

    def run() -> None:
        arrays = (*history.arrays(), history.next_states[:, -1])
        with torch.no_grad():
            model(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    return observed_past(model, run, history.states.shape, strategy)


def observed_past(
    model: Any,
    run: Callable[[], Any],
    shape: tuple[int, int],
    strategy: Strategy,
    *,
    first: int = 0,
    query_row: int = -1,
) -> Past:
    """Tokens that `model` sees in ``run()``, each sequence in the place of a head.

    Parameters
    ----------
    model:
        As in `rattention.inspect.capture`.
    run:
        One forward pass; not called where `strategy` looks at positions alone.
    shape:
        ``(batch, tokens)``; what the model sees besides, such as a query, is not chosen.
    first:
        The position of the first of these tokens.
    strategy:
        What the past is for.
    query_row:
        Whose attention counts as the query's.

    Returns
    -------
    A `Past` whose attention is the mean over layers and heads, and whose keys are those of all layers and
    heads side by side.
    """
    batch, tokens = shape
    keys = np.zeros((batch, tokens, 0), np.float32)
    if not (strategy.needs_queries or strategy.replaces):
        return Past(keys)
    with capture(model) as layers:
        run()

    these = slice(first, first + tokens)

    def measure(kind: Attention) -> NDArray[np.float32]:
        each = [
            layer.rows([query_row])[:, :, 0] if kind == "query" else np.asarray(layer.metrics().received)
            for layer in layers
        ]
        return np.asarray(np.mean([one[..., these].mean(axis=1) for one in each], axis=0), np.float32)

    if strategy.replaces:
        every = np.concatenate([layer.key[:, :, these] for layer in layers], axis=1)
        keys = every.swapaxes(1, 2).reshape(batch, tokens, -1).astype(np.float32)
    return Past(keys, measure=measure)
