"""What a model gets in its rooms, beside chance, its teachers and an agent that knows the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rattention._arguments import at_least
from rattention.studies.dark_room.evaluation import collection_of, evaluate
from rattention.studies.dark_room.rooms import Room, oracle_returns, random_returns
from rattention.studies.dark_room.source import learn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from rattention.studies.dark_room.model import HistoryTransformer

LAST = 5
"""Episodes at the end over which a late return is averaged."""


@dataclass(frozen=True)
class Comparison:
    """Returns in rooms of ``[goals]``."""

    room: Room
    goals: NDArray[np.int64]
    returns: NDArray[np.float64]
    """Of the model, ``[goals, episodes]``: the mean of its attempts, each from an empty context."""
    attempts: int
    random: NDArray[np.float64]
    """Of random actions in an episode, expected, ``[goals]``."""
    source: NDArray[np.float64]
    """Of the Q-learning agents that it was trained on, ``[goals, episodes]``: the mean of several."""
    oracle: NDArray[np.float64]
    """Of an agent that knows the goal, ``[goals]``."""

    def first(self) -> NDArray[np.float64]:
        """The model's returns in its first episode, ``[goals]``."""
        return self.returns[:, 0]

    def last(self) -> NDArray[np.float64]:
        """Its mean returns in the last episodes, ``[goals]``."""
        return np.asarray(self.returns[:, -LAST:].mean(axis=1))

    def source_last(self) -> NDArray[np.float64]:
        """The mean returns of the agents it learned from in their last episodes, ``[goals]``."""
        return np.asarray(self.source[:, -LAST:].mean(axis=1))

    def as_data(self) -> dict[str, Any]:
        """Everything as plain numbers."""
        means = {
            "random": self.random,
            "first_episode": self.first(),
            "last_episodes": self.last(),
            "source_last_episodes": self.source_last(),
            "oracle": self.oracle,
        }
        return {
            "goals": self.goals.tolist(),
            "attempts": self.attempts,
            "last": min(LAST, self.returns.shape[1]),
            "mean": {name: round(float(values.mean()), 4) for name, values in means.items()},
            "per_goal": {name: values.round(4).tolist() for name, values in means.items()},
            "returns": self.returns.round(4).tolist(),
            "source_returns": self.source.round(4).tolist(),
        }


def compare(
    model: HistoryTransformer,
    goals: ArrayLike | None = None,
    episodes: int = 40,
    *,
    attempts: int = 1,
    seed: int = 0,
    source_agents: int = 32,
    **options: Any,
) -> Comparison:
    """Evaluate a trained model and those it is compared with in the same rooms.

    Parameters
    ----------
    goals:
        The held-out goals of its training by default.
    episodes:
        Of the model; the source agents have as many as in training.
    attempts, source_agents:
        How often each goal is tried, by the model and by Q-learning agents, for the mean.
    seed:
        Of actions, random starts and source agents.
    options:
        Of `evaluate`: temperature, compress, forget, progress.
    """
    at_least("attempts", attempts, 1)
    at_least("source_agents", source_agents, 1)
    collection = collection_of(model)
    rooms = collection.split()[1] if goals is None else collection.room.goals(goals)
    returns = evaluate(
        model, np.repeat(rooms, attempts), episodes, room=collection.room, seed=seed, **options
    )
    agents = learn(np.repeat(rooms, source_agents), collection.agent, collection.room, seed=seed + 1)
    source = agents.rewards.reshape(len(rooms), source_agents, -1, collection.room.steps).sum(axis=3)
    return Comparison(
        collection.room,
        rooms,
        returns.reshape(len(rooms), attempts, episodes).mean(axis=1),
        attempts,
        random_returns(rooms, collection.room),
        source.mean(axis=1, dtype=np.float64),
        oracle_returns(rooms, collection.room),
    )
