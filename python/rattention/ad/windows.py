"""What the model trains on: windows of learning histories that end where an action is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rattention.ad.histories import LearningHistories
    from rattention.ad.history import History


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
    """Draws windows that begin with an episode, anywhere in a learning history.

    Each window keeps all episodes of its history, or each second, and so on up to each `every`-th, as chance
    will have it, beginning with any of the first: so windows span more or less of what was learned.

    Half of the queries stand anywhere, half at the end of the context, and half of both are moved back to
    where an episode begins. There nothing else teaches: the last transition of an episode does not count, as
    the next action is taken elsewhere.
    """

    def __init__(self, histories: LearningHistories, context: int, every: int) -> None:
        """ValueError where nothing of that length is left when episodes are left out."""
        self.history, self.context, self.every = histories.history, context, every
        self.steps = histories.collection.room.steps
        self.episodes = histories.collection.agent.episodes
        self.spanned = -(-(context + 1) // self.steps)
        """Episodes that a window reaches into."""
        if self.episodes // every < self.spanned:
            raise ValueError(
                f"histories are too short: of {self.episodes} episodes {self.episodes // every} are left "
                f"where one in {every} is kept, and a context of {context} transitions "
                f"spans {self.spanned} of {self.steps}; collect more episodes, keep more of them or shorten "
                f"the context"
            )

    def draw(self, batch: int, generator: np.random.Generator) -> Windows:
        """`batch` windows."""
        agents = generator.integers(len(self.history.states), size=(batch, 1))
        stride = generator.integers(1, self.every + 1, size=(batch, 1))
        first = generator.integers(stride)
        begin = generator.integers(self.episodes // stride - self.spanned + 1)
        times = np.arange(self.context + 1)
        kept = ((begin + times // self.steps) * stride + first) * self.steps + times % self.steps
        lengths = self._queries(batch, generator)
        places = times[:-1]
        counted = (places < lengths[:, None]) & (times[1:] % self.steps != 0)
        return Windows(self.history.of(agents[:, 0]).select(kept), lengths, counted)

    def _queries(self, batch: int, generator: np.random.Generator) -> NDArray[np.int64]:
        anywhere = np.minimum(generator.integers(2 * self.context + 1, size=batch), self.context)
        at_start = generator.random(batch) < 0.5
        return np.where(at_start, anywhere // self.steps * self.steps, anywhere)
