"""What the model trains on: windows of learning histories that end where an action is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rattention.ad.history import History

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rattention.ad.histories import LearningHistories


@dataclass(frozen=True)
class Windows:
    """A batch of stretches of histories.

    The query stands at ``lengths``, behind the transitions before it; what lies after it is seen by nothing
    that counts.
    """

    history: History
    """``[batch, context + 1]``."""
    lengths: NDArray[np.int64]
    """Transitions that the query sees, ``[batch]``, 0 to context."""
    counted: NDArray[np.bool_]
    """Transitions ``[batch, context]`` behind which the next action is predicted, too."""


class WindowSampler:
    """Draws windows: every transition of every history is as likely as any other to be the query.

    Each window keeps all episodes of a learning history, or each second, and so on up to each `every`-th, as
    chance will have it, beginning with any of the first: so windows span more or less of what was learned. A
    window goes back from its query over `context` transitions, or to the beginning of the history; so short
    ones are those of agents that have just begun, as in evaluation.

    For the same reason a transition counts as a second place to predict from only where its past is the
    agent's own from the beginning, or at least half a context long. Nor does the last of an episode count:
    the next action is taken elsewhere.
    """

    def __init__(self, histories: LearningHistories, context: int, every: int) -> None:
        """ValueError where nothing of that length is left when episodes are left out."""
        self.history, self.context, self.every = histories.history, context, every
        self.steps = histories.collection.room.steps
        self.episodes = histories.collection.agent.episodes
        shortest = self.episodes // every * self.steps
        if shortest <= context:
            raise ValueError(
                f"histories are too short: of {self.episodes} episodes with {self.steps} transitions "
                f"{shortest} transitions are left when one in {every} is kept, and the context is {context}; "
                "collect more episodes, keep more of them or shorten the context"
            )

    def draw(self, batch: int, generator: np.random.Generator, context: int | None = None) -> Windows:
        """`batch` windows, of a shorter context where one is given."""
        context = self.context if context is None else context
        agents = generator.integers(len(self.history.states), size=(batch, 1))
        stride = generator.integers(1, self.every + 1, size=(batch, 1))
        first = generator.integers(stride)
        length = self.episodes // stride * self.steps
        query = generator.integers(length)
        start = np.maximum(0, query - context)
        times = np.minimum(start + np.arange(context + 1), length - 1)
        kept = (times // self.steps * stride + first) * self.steps + times % self.steps
        places = np.arange(context)
        counted = (
            (places < query - start)
            & (times[:, 1:] % self.steps != 0)
            & ((start == 0) | (places >= context // 2))
        )
        columns = (array[agents, kept] for array in self.history.arrays())
        return Windows(History(*columns), (query - start)[:, 0], counted)
