"""Acting with fixed weights: what is learned in the context alone, beside chance, teachers and an oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from rattention._arguments import at_least
from rattention._models import evaluating
from rattention.studies.dark_room.histories import Collection
from rattention.studies.dark_room.learning import History, learn
from rattention.studies.dark_room.model import HistoryTransformer
from rattention.studies.dark_room.rooms import DarkRooms, Room, oracle_returns, random_returns

LAST = 5
"""Episodes at the end over which a late return is averaged."""


def evaluate(
    model: HistoryTransformer,
    goals: ArrayLike,
    episodes: int,
    *,
    room: Room | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    compress: Callable[[History], History] | None = None,
    forget: bool = False,
    progress: Callable[[range], Iterable[int]] = iter,
) -> NDArray[np.float64]:
    """Let the model act in a room for each of `goals`; its weights do not change, its context grows.

    The context goes on across episodes and slides when it is full.

    Parameters
    ----------
    goals:
        States ``[goals]``; one may come several times.
    episodes:
        How many, >= 1.
    room:
        Size and rules; by default those the model was trained with.
    seed:
        Of random starts and of drawing actions.
    temperature:
        Of the logits; 0 takes the most likely action.
    compress:
        Called with the history before every decision; the model sees what it returns: transitions of the same
        batch, no more than the model's context. See `History.select`.
    forget:
        Whether transitions that `compress` leaves out are gone for good; otherwise it receives as many of the
        last transitions as the context holds, each time.
    progress:
        Wraps the range of episodes, for a bar.

    Returns
    -------
    The return of every episode, ``[goals, episodes]``.
    """
    at_least("episodes", episodes, 1)
    if not 0 <= temperature < np.inf:
        raise ValueError(f"temperature must be a number >= 0, got {temperature}")
    rooms = DarkRooms(goals, room or collection_of(model).room, generator=np.random.default_rng((seed, 0)))
    if model.config["states"] != rooms.room.states:
        raise ValueError(
            f"the model knows {model.config['states']} states, a room of side {rooms.room.size} has "
            f"{rooms.room.states}"
        )
    history, generator = History.empty(len(rooms.goals)), np.random.default_rng((seed, 1))
    agent = _Agent(model, history, temperature, generator, compress or (lambda seen: seen), forget)
    with evaluating(model):
        return np.stack([agent.episode(rooms) for _ in progress(range(episodes))], axis=1)


def collection_of(model: HistoryTransformer) -> Collection:
    """The histories that the model was trained on, or the usual ones where its record does not say."""
    settings = model.record.get("collection")
    return Collection.of(settings) if settings else Collection()


@dataclass
class _Agent:
    """The model, and what it remembers."""

    model: HistoryTransformer
    history: History
    temperature: float
    generator: np.random.Generator
    compress: Callable[[History], History]
    forget: bool

    def episode(self, rooms: DarkRooms) -> NDArray[np.float64]:
        """The returns ``[rooms]``."""
        total = np.zeros(len(rooms.goals))
        for transition in rooms.episode(self.act):
            self.history = self.history.append(*transition).last(self.model.config["context"])
            total += transition[2]
        return total

    def act(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """An action for every room."""
        seen = self.compress(self.history)
        if not isinstance(seen, History):
            raise TypeError(f"compress must return a History, got {type(seen).__name__}")
        if len(seen.states) != len(states):
            raise ValueError(f"compress must keep the batch of {len(states)}, got {len(seen.states)}")
        if self.forget:
            self.history = seen
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (*seen.arrays(), states))
        logits = self.model(*tensors).double().numpy()
        if self.temperature > 0:  # the largest of logits with Gumbel noise is a draw from their softmax
            logits = logits / self.temperature + self.generator.gumbel(size=logits.shape)
        return np.asarray(logits.argmax(axis=1), np.int64)


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
