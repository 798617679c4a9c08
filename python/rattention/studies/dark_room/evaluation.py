"""Acting with fixed weights: what is learned in the context alone, in rooms of goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from rattention._arguments import at_least
from rattention._models import evaluating
from rattention.studies.dark_room.histories import Collection
from rattention.studies.dark_room.history import History
from rattention.studies.dark_room.rooms import DarkRooms, Room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray

    from rattention.studies.dark_room.model import HistoryTransformer


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
        Whether what `compress` left out is gone for good; else it is given all of the last transitions, as
        many as the context holds, each time.
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
    agent = _Agent(model, len(rooms.goals), temperature, np.random.default_rng((seed, 1)), compress, forget)
    _check_room(model, rooms.room)
    with evaluating(model):
        return np.stack([_episode(agent, rooms) for _ in progress(range(episodes))], axis=1)


def collection_of(model: HistoryTransformer) -> Collection:
    """The histories that the model was trained on, or the usual ones where its record does not say."""
    settings = model.record.get("collection")
    return Collection.of(settings) if settings else Collection()


def _episode(agent: _Agent, rooms: DarkRooms) -> NDArray[np.float64]:
    states, over = rooms.reset(), False
    total = np.zeros(len(states))
    while not over:
        actions = agent.act(states)
        reached, rewards, over = rooms.step(actions)
        agent.history = agent.history.append(states, actions, rewards, reached).last(agent.context)
        states = reached
        total += rewards
    return total


@dataclass
class _Agent:
    """The model, and what it remembers."""

    model: HistoryTransformer
    batch: int
    temperature: float
    generator: np.random.Generator
    compress: Callable[[History], History] | None
    forget: bool

    def __post_init__(self) -> None:
        self.context: int = self.model.config["context"]
        self.history = History.empty(self.batch)

    @torch.no_grad()
    def act(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """An action for every room."""
        seen = self._seen()
        if self.forget:
            self.history = seen
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (*seen.arrays(), states))
        logits = self.model(*tensors).double().numpy()
        if self.temperature > 0:  # the largest of logits with Gumbel noise is a draw from their softmax
            logits = logits / self.temperature + self.generator.gumbel(size=logits.shape)
        return np.asarray(logits.argmax(axis=1), np.int64)

    def _seen(self) -> History:
        if self.compress is None:
            return self.history
        seen = self.compress(self.history)
        if not isinstance(seen, History):
            raise TypeError(f"compress must return a History, got {type(seen).__name__}")
        if len(seen.states) != self.batch:
            raise ValueError(f"compress must keep the batch of {self.batch}, got {len(seen.states)}")
        return seen


def _check_room(model: HistoryTransformer, room: Room) -> None:
    if model.config["states"] != room.states:
        raise ValueError(
            f"the model knows {model.config['states']} states, a room of side {room.size} has {room.states}"
        )
