"""What can be validated, and the loop over strategies, budgets and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rattention.compression.past import Budget, require_budget
from rattention.compression.strategies import Strategy, require_strategy
from rattention.studies.compression.results import Constant, Measured, Preview, Trial, Validation

BUDGETS: tuple[Budget, ...] = (0.125, 0.25, 0.5, 0.75)

MOST_TURNS = 5
"""The most repetitions of the runs of one strategy and one seed, for their time."""

LONG_ENOUGH = 2.0
"""Seconds after which they are not repeated any more."""


class Task(Protocol):
    """A model with something to do."""

    name: str
    """In words."""
    quality: str
    """What the quality is, with its unit."""
    higher_is_better: bool = True
    strategies: tuple[str, ...]
    """Names of those that can be applied."""

    def full(self, seed: int) -> Measured:
        """Uncompressed; what `compressed` needs of it is remembered until the next call."""

    def compressed(self, strategy: Strategy, budget: Budget) -> Measured:
        """With the seed of the last full run."""

    def preview(self, seed: int, strategy: Strategy, budget: Budget) -> Preview:
        """What would be kept of the first sequence of this seed."""

    def constant(self) -> Constant | None:
        """What the model's own layers of constant size hold of what full attention would; None without."""
        return None


def draw_pieces(ids: NDArray[np.int64], length: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` pieces of a text's tokens, ``[count, length]``."""
    starts = np.random.default_rng(seed).integers(0, len(ids) - length + 1, count)
    return np.asarray(ids[starts[:, None] + np.arange(length)])


def validate(
    task: Task,
    strategies: Sequence[str] | None = None,
    budgets: Sequence[Budget] = BUDGETS,
    seeds: Iterable[int] = range(5),
    *,
    progress: Callable[[Sequence[int], str], Iterable[int]] = lambda seeds, _: seeds,
) -> Validation:
    """Run a task with every strategy at every budget, each beside a full run with the same seed.

    Full and compressed runs take turns: a full run, then one strategy at every budget; short ones are
    repeated up to `MOST_TURNS` times. Before a strategy's first turn both are run once without counting, as
    what is made or loaded once is no part of what compression costs.

    Parameters
    ----------
    task:
        Of `rattention.studies.compression`.
    strategies:
        Names; all that the task has by default.
    budgets:
        Counts or shares.
    seeds:
        For each at least a full run per strategy, and a compressed one at every budget; intervals need two.
    progress:
        Wraps the seeds, for a bar.

    Raises
    ------
    ValueError
        Strategies that the task does not have, impossible budgets, no seeds.
    """
    names = tuple(task.strategies if strategies is None else strategies)
    unknown = [name for name in names if name not in task.strategies]
    if unknown or not names:
        raise ValueError(
            f"strategies must be some of {', '.join(task.strategies)}; got {', '.join(map(str, unknown))}"
        )
    sizes = tuple(require_budget(budget) for budget in budgets)
    chosen = tuple(seeds)
    if not sizes or not chosen:
        raise ValueError("budgets and seeds must not be empty")
    trials: list[Trial] = []
    for seed in progress(chosen, task.name):
        for name in names:
            if seed == chosen[0]:
                task.full(seed)
                task.compressed(require_strategy(name), sizes[0])
            trials += _taken_in_turns(task, name, sizes, seed)
    return Validation(task.name, task.quality, task.higher_is_better, tuple(trials), task.constant())


def _taken_in_turns(task: Task, name: str, budgets: Sequence[Budget], seed: int) -> list[Trial]:
    """One strategy with one seed: in each turn a full run, and a compressed one at every budget."""
    turns: dict[Budget, list[tuple[Measured, Measured]]] = {budget: [] for budget in budgets}
    spent = 0.0
    for _ in range(MOST_TURNS):
        full = task.full(seed)
        spent += full.seconds
        for budget, pairs in turns.items():
            ours = task.compressed(require_strategy(name), budget)
            spent += ours.seconds
            pairs.append((full, ours))
        if spent >= LONG_ENOUGH:
            break
    return [Trial(name, budget, seed, tuple(pairs)) for budget, pairs in turns.items()]
