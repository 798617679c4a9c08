"""What the model trains on: windows of learning histories that end where an action is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rattention.studies.dark_room.histories import LearningHistories
    from rattention.studies.dark_room.history import History


@dataclass(frozen=True)
class Windows:
    """A batch of stretches of histories.

    The query stands at ``lengths``, after the transitions it sees; what lies after it is seen by nothing that
    counts.
    """

    history: History
    """``[batch, context + 1]``."""
    lengths: NDArray[np.int64]
    """Transitions that the query sees, ``[batch]``, 0 to context."""
    counted: NDArray[np.bool_]
    """Transitions ``[batch, context]`` after which the next action is predicted, too."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """All arrays by name."""
        arrays = vars(self.history) | {"lengths": self.lengths, "counted": self.counted}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class WindowSampler:
    """Draws windows anywhere in a learning history.

    Each window keeps all episodes of its history, or each second, and so on up to each `every`-th, at
    random, beginning with any of the first: so windows span more or less of what was learned.

    Half of the windows are full and begin anywhere in an episode, as does what a model sees whose context
    slides; of the others, whose queries stand anywhere, the history begins with an episode, as it does where
    a model starts to act. Half of both are placed so that the query is where an episode begins. There nothing
    else teaches: the last transition of an episode does not count, as the next action is taken elsewhere.
    """

    def __init__(self, histories: LearningHistories, context: int, every: int) -> None:
        self.history, self.context, self.every = histories.history, context, every
        self.steps = histories.collection.room.steps
        self.episodes = histories.collection.agent.episodes
        self.spanned = (self.steps - 1 + context) // self.steps + 1
        """Episodes that a window reaches into, at most."""
        if self.episodes // every < self.spanned:
            raise ValueError(
                f"histories are too short: of {self.episodes} episodes {self.episodes // every} are left "
                f"where one in {every} is kept, and a context of {context} transitions "
                f"reaches into {self.spanned} of {self.steps}; collect more episodes, keep more of them or "
                f"shorten the context"
            )

    def draw(self, batch: int, generator: np.random.Generator) -> Windows:
        """`batch` windows."""
        agents = generator.integers(len(self.history.states), size=batch)
        stride = generator.integers(1, self.every + 1, size=(batch, 1))
        first = generator.integers(stride)
        begin = generator.integers(self.episodes // stride - self.spanned + 1)
        lengths, offset = self._queries(batch, generator)
        times = offset[:, None] + np.arange(self.context + 1)
        kept = ((begin + times // self.steps) * stride + first) * self.steps + times % self.steps
        counted = (np.arange(self.context) < lengths[:, None]) & (times[:, 1:] % self.steps != 0)
        return Windows(self.history.of(agents).select(kept), lengths, counted)

    def _queries(
        self, batch: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lengths, and steps of the first episode that lie before the window."""
        full, at_start = generator.random((2, batch)) < 0.5
        length = generator.integers(self.context + 1, size=batch)
        length = np.where(at_start, length // self.steps * self.steps, length)
        phase = np.where(at_start, 0, generator.integers(self.steps, size=batch))
        offset = (phase - self.context) % self.steps
        return np.where(full, self.context, length), np.where(full, offset, 0)
